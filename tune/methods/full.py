"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from typing import Any

from edgetune.tune.recipe import TuneRecipe


def prepare(model: Any, recipe: TuneRecipe) -> Any:
    """Train everything."""
    model.requires_grad_(True)
    return model
