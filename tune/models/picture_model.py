"""The model that learns pictures: a pretrained trunk with a fresh head, in transformers' own classifier class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForImageClassification

from edgetune.serve.errors import ModelError
from edgetune.tune.models.base import Base, read_config, unopenable_weights
from edgetune.tune.models.classifier import head_linear
from edgetune.tune.models.soundness import check_weights
from edgetune.tune.tasks.objective import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from edgetune.tune.models.types import Model

# MobileNetV2's configuration says 0.8, with which a few hundred pictures teach nothing.
MOST_DROPOUT = 0.2
CONVOLUTIONS_RATE = 3e-4
_DROPOUTS = ("classifier_dropout_prob", "dropout_rate")
# What transformers' class names for this task end with; that of a teacher's second head is none of ours.
ENDING = "ForImageClassification"


def is_picture_model(config: PreTrainedConfig) -> bool:
    """Whether a saved configuration is of a picture classifier."""
    names = getattr(config, "architectures", None) or []
    return any(str(name).endswith(ENDING) for name in names)


def start_picture_model(base: Base, objective: Objective) -> Model:
    """The pretrained trunk with a fresh head for what is to be learnt, in fp32.

    Raises:
        ModelError: the architecture has no picture classifier, or its weights cannot be opened, do not belong to it, or
            are no numbers.
    """
    config = read_config(base)
    if type(config) not in AutoModelForImageClassification._model_mapping:
        raise ModelError(
            f"{base.id} is a {config.model_type!r} model, and transformers has no picture classifier for those.",
            expected="a model for pictures, such as MobileNetV2, EfficientNet, ResNet, ConvNeXt, ViT, DeiT or Swin",
            action="choose another --base",
        )
    objective.configure(config)
    for name in _DROPOUTS:
        if getattr(config, name, 0.0) > MOST_DROPOUT:
            setattr(config, name, MOST_DROPOUT)
    try:
        model, loading = AutoModelForImageClassification.from_pretrained(
            base.folder, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise unopenable_weights(base, error) from error
    head_linear(model)
    check_weights(base, model, set(loading["missing_keys"]))
    keep_statistics(model)
    return in_channels_last(model)


def in_channels_last(model: Any) -> Any:
    """The model with its weights ordered for convolutions: on a CPU a pass takes half the time (docs/log.md)."""
    return model.to(memory_format=torch.channels_last)


def trunk_rate(model: nn.Module, usual: float) -> float:
    """The learning rate of the trunk where a method, whose rates are made for transformers, has a usual one.

    Networks of convolutions with batch norms learn at several times the rate: at 3e-4 MobileNetV2 reached 0.939, 0.950
    and 0.956 on 180 sign digits after one, two and three epochs.
    """
    normed = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    return max(usual, CONVOLUTIONS_RATE) if normed else usual


def keep_statistics(model: nn.Module) -> None:
    """Let batch norms go on with the statistics of the pretraining: those of a small batch are noise."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = _stays(module)  # type: ignore[method-assign]


def _stays(module: nn.Module) -> Any:
    def train(mode: bool = True) -> nn.Module:
        return module

    return train
