"""The type of a model in signatures: as transformers opens it, or with the adapters that peft puts around it.

For type checkers alone; nothing here is imported as a program runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    Model: TypeAlias = PreTrainedModel | PeftModel
    # An input as the model takes it, by name, with its number and target where it is learnt from; or a batch of them.
    EncodedRow: TypeAlias = dict[str, Any]
