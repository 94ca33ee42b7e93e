"""The type of a model in signatures: as transformers opens it, or with the adapters that peft puts around it.

For type checkers alone; nothing here is imported as a program runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    Model: TypeAlias = PreTrainedModel | PeftModel
