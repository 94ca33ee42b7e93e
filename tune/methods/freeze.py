"""Layer freezing: the top k encoder layers and the head are trained, all below stays as it was pretrained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from edgetune.serve.errors import ModelError, RecipeError
from edgetune.tune.models.classifier import head_names

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model
    from edgetune.tune.recipe import TuneRecipe


def prepare(model: Model, recipe: TuneRecipe) -> Model:
    """Train the top layers, what follows them, and the head."""
    top_layers = recipe.freeze.top_layers
    top = max(1, len(encoder_layers(model)) // 3) if top_layers == "auto" else top_layers
    model.requires_grad_(False)
    for module in [*top_of_trunk(model, top, "tune.freeze.top_layers"), *map(model.get_submodule, head_names(model))]:
        module.requires_grad_(True)
    return model


def top_of_trunk(model: nn.Module, top: int, key: str) -> list[nn.Module]:
    """The top layers and what follows them in the trunk.

    Raises:
        RecipeError: the recipe's `key` asks for more layers than there are.
    """
    layers = encoder_layers(model)
    if top > len(layers):
        raise RecipeError(f"{key} is {top}, and the model has {len(layers)} layers.", expected=f"1 to {len(layers)}")
    return [*layers[len(layers) - top :], *after_layers(model, layers[-1])]


def encoder_layers(model: nn.Module) -> list[nn.Module]:
    """The encoder's layers, bottom to top; a model that shares one layer's weights (ALBERT) gives that one.

    Raises:
        ModelError: no list of layers was found.
    """
    layers = layer_list(model)
    if layers is None:
        raise ModelError("The model has no list of encoder layers.", action="use --method lora or full")
    return list(layers)


def layer_list(model: nn.Module) -> nn.ModuleList | None:
    """The list that holds the encoder's layers; None where there is none."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) > 0]
    # The stack of layers is by far the heaviest list; ALBERT's shared group is a list of one.
    return max(lists, key=lambda layers: sum(weight.numel() for weight in layers.parameters()), default=None)


def after_layers(model: Model, last: nn.Module) -> list[nn.Module]:
    """The trunk's modules behind the one that holds the layers: a pooler, which may be random, or a last norm."""
    parts = list(model.base_model.children())
    holds = [place for place, part in enumerate(parts) if any(module is last for module in part.modules())]
    return parts[holds[-1] + 1 :] if holds else []
