"""The probe trains nothing: its head is solved before any method starts (`edgetune.tune.training.probe`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.tune.recipe import TuneRecipe

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


def prepare(model: Model, recipe: TuneRecipe) -> Model:
    """Freeze everything; the head is already solved."""
    model.requires_grad_(False)
    return model
