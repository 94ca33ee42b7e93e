"""How each task turns logits into answers at run time: one file a task, one row here."""

from edgetune.serve.heads import label as text_classification

ANSWERS = {"text-classification": text_classification.answer}
