"""The probe trains nothing: its head is solved before any method starts (`edgetune.tune.training.probe`)."""

from __future__ import annotations

from typing import Any

from edgetune.tune.recipe import TuneRecipe


def prepare(model: Any, recipe: TuneRecipe) -> Any:
    """Freeze everything; the head is already solved."""
    model.requires_grad_(False)
    return model
