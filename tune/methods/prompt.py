"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): virtual tokens before each text, and the head, are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.tune.methods.virtual_tokens import train_virtual_tokens

if TYPE_CHECKING:
    from torch import nn

    from edgetune.tune.models.types import Model
    from edgetune.tune.recipe import TuneRecipe


def prepare(model: Model, recipe: TuneRecipe) -> Model:
    """Train the virtual tokens' rows themselves, in peft's PromptEmbedding."""

    def source(count: int, width: int) -> nn.Module:
        from peft import PromptEmbedding, PromptTuningConfig

        config = PromptTuningConfig(num_virtual_tokens=count, token_dim=width, num_transformer_submodules=1)
        embedding: nn.Module = PromptEmbedding(config, None)
        return embedding

    return train_virtual_tokens(model, source)
