"""The tasks as training sees them: one file a task, one row here; `edgetune.serve.heads` is their other half."""

from edgetune.tune.tasks import text_classification

TASKS = {"text-classification": text_classification}
