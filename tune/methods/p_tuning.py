"""P-tuning (Liu et al. 2021, arXiv 2103.10385): a small network gives the virtual tokens; it and the head learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.tune.methods.virtual_tokens import train_virtual_tokens

if TYPE_CHECKING:
    from torch import nn

    from edgetune.tune.models.types import Model
    from edgetune.tune.recipe import TuneRecipe


def prepare(model: Model, recipe: TuneRecipe) -> Model:
    """Train peft's PromptEncoder, which is left out once its rows are in the table."""

    def source(count: int, width: int) -> nn.Module:
        from peft import PromptEncoder, PromptEncoderConfig

        config = PromptEncoderConfig(
            num_virtual_tokens=count,
            token_dim=width,
            num_transformer_submodules=1,
            encoder_reparameterization_type=recipe.prompt.network.upper(),
            encoder_hidden_size=width,
            encoder_num_layers=2,
            encoder_dropout=0.0,
        )
        network: nn.Module = PromptEncoder(config)
        return network

    return train_virtual_tokens(model, source)
