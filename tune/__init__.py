"""Learns from labelled data and merges what was learnt: data, probe, LoRA, freezing, full fine-tuning.

Files of rows (data/reading.py and what it imports) are read in a base install too, by `edgetune predict --input`; each
of the other folders says what it needs.
"""

from edgetune.serve.dependencies import require


def require_training() -> None:
    """Check that what learning needs is installed.

    Raises:
        MissingDependency: naming the extra.
    """
    require("build", "datasets", "peft", "pydantic", "sklearn", "torch", "transformers", "yaml")
