"""LoRA (Hu et al. 2021, arXiv 2106.09685) through peft, on all linear layers of the trunk, the head beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from edgetune.serve.errors import ModelError
from edgetune.tune.classifier import head_names
from edgetune.tune.recipe import TuneRecipe


def prepare(model: Any, recipe: TuneRecipe) -> Any:
    """Wrap the model in adapters; the whole head is trained and saved with them."""
    from peft import LoraConfig, get_peft_model

    head = head_names(model)
    config = LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=linear_names(model, outside=head),
        modules_to_save=list(head),
    )
    return get_peft_model(model, config)


def linear_names(model: nn.Module, outside: Sequence[str]) -> list[str]:
    """Full names of the linear layers that are not part of the top-level modules named in `outside`.

    Raises:
        ModelError: there is none.
    """
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[0] not in outside
    ]
    if not names:
        raise ModelError("The model has no linear layers to adapt.", action="use --method full")
    return names
