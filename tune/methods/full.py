"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.tune.recipe import TuneRecipe

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


def prepare(model: Model, recipe: TuneRecipe) -> Model:
    """Train everything."""
    model.requires_grad_(True)
    return model
