"""LoRA (Hu et al. 2021, arXiv 2106.09685) through peft, on the linear layers of the trunk, the head beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from edgetune.serve.errors import ModelError
from edgetune.tune.methods.freeze import top_of_trunk
from edgetune.tune.models.classifier import head_names
from edgetune.tune.recipe import TuneRecipe

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


def prepare(model: Model, recipe: TuneRecipe) -> Model:
    """Wrap the model in adapters; the whole head is trained and saved with them."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer
    from transformers.pytorch_utils import Conv1D

    head = head_names(model)
    names = linear_names(model, outside=head)
    if recipe.lora.top_layers != "all":
        adapted_parts = top_of_trunk(model, recipe.lora.top_layers, "tune.lora.top_layers")
        inside = {id(module) for part in adapted_parts for module in part.modules()}
        names = [name for name in names if id(model.get_submodule(name)) in inside]
    config = LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=names,
        modules_to_save=list(head),
        # GPT-2's Conv1D holds its weights as (in, out).
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in names),
    )
    adapted = get_peft_model(model, config)
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            # Under autocast peft would cast each input to fp32, for autocast to cast it back.
            layer.cast_input_dtype_enabled = False
            inside = layer.get_base_layer()
            if isinstance(inside, nn.Conv2d):  # MobileNetV2 reads these of the layer that stands in its place
                for name in ("stride", "kernel_size", "dilation"):
                    setattr(layer, name, getattr(inside, name))
    return adapted


def linear_names(model: nn.Module, outside: Sequence[str]) -> list[str]:
    """Full names of the linear layers that are not part of the top-level modules named in `outside`.

    Raises:
        ModelError: there is none.
    """
    from transformers.pytorch_utils import Conv1D

    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name.split(".")[0] not in outside
    ]
    if not names:  # of convolutions those of one pixel are products of a matrix; depthwise ones are not
        names = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and module.groups == 1 and name.split(".")[0] not in outside
        ]
    if not names:
        raise ModelError("The model has no linear layers to adapt.", action="use --method full")
    return names
