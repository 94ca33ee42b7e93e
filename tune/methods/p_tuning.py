"""P-tuning (Liu et al. 2021, arXiv 2103.10385): a small network gives the virtual tokens; it and the head learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgetune.tune.methods.virtual_tokens import train_virtual_tokens
from edgetune.tune.recipe import TuneRecipe

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


def prepare(model: Model, recipe: TuneRecipe) -> Model:
    """Train peft's PromptEncoder, which is left out once its rows are in the table."""
    from peft import PromptEncoder, PromptEncoderConfig

    def source(rows: torch.Tensor) -> Any:
        config = PromptEncoderConfig(
            num_virtual_tokens=len(rows),
            token_dim=rows.shape[1],
            num_transformer_submodules=1,
            encoder_reparameterization_type=recipe.prompt.network.upper(),
            encoder_hidden_size=rows.shape[1],
            encoder_num_layers=2,
            encoder_dropout=0.0,
        )
        network: Any = PromptEncoder(config)
        with torch.no_grad():
            network.embedding.weight.copy_(rows)
        return network

    return train_virtual_tokens(model, source)
