"""Probe first, then LoRA from the probed head, and the better on the validation part is kept (training/outcome.py).

LoRA and not another method, because its adapters start as nothing: training begins at the very probe.
"""

from __future__ import annotations

from typing import Any

from edgetune.tune.methods import lora
from edgetune.tune.recipe import TuneRecipe


def prepare(model: Any, recipe: TuneRecipe) -> Any:
    """Wrap the model in adapters, as `lora` does."""
    return lora.prepare(model, recipe)
