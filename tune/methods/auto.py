"""Probe first, then LoRA from the probed head, and the better on the validation part is kept (training/outcome.py).

LoRA and not another method, because its adapters start as nothing: training begins at the very probe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.tune.methods import lora
from edgetune.tune.recipe import TuneRecipe

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


def prepare(model: Model, recipe: TuneRecipe) -> Model:
    """Wrap the model in adapters, as `lora` does."""
    return lora.prepare(model, recipe)
