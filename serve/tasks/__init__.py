"""How each task turns logits into answers at run time: one file a task, one row here."""

from edgetune.serve.tasks import text_classification

ANSWERS = {"text-classification": text_classification.answer}
