"""Full fine-tuning without the token embeddings: all layers and the head.

Embeddings hold half the weights of a small encoder and four fifths of a multilingual one, and AdamW passes over all of
them in every step, whatever tokens it has; what a data set of thousands of rows teaches, the layers hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.tune.models.classifier import token_embeddings
from edgetune.tune.recipe import TuneRecipe

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


def prepare(model: Model, recipe: TuneRecipe) -> Model:
    """Train everything but the token embeddings."""
    model.requires_grad_(True)
    table = token_embeddings(model)
    if table is not None:
        table.requires_grad_(False)
    return model
