"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): virtual tokens before each text, and the head, are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgetune.tune.methods.virtual_tokens import train_virtual_tokens
from edgetune.tune.recipe import TuneRecipe

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


def prepare(model: Model, recipe: TuneRecipe) -> Model:
    """Train the virtual tokens' rows themselves, in peft's PromptEmbedding."""
    from peft import PromptEmbedding, PromptTuningConfig

    def source(rows: torch.Tensor) -> Any:
        config = PromptTuningConfig(num_virtual_tokens=len(rows), token_dim=rows.shape[1], num_transformer_submodules=1)
        embedding: Any = PromptEmbedding(config, None)
        with torch.no_grad():
            embedding.embedding.weight.copy_(rows)
        return embedding

    return train_virtual_tokens(model, source)
