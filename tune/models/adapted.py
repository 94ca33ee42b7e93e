"""Layers that peft's adapters stand in the place of."""

from __future__ import annotations

from typing import Any


def keep_readable(model: Any) -> Any:
    """The adapted model, whose convolutions still tell what a network reads of them from outside.

    MobileNetV2's padding asks a convolution for its stride, and peft's adapter in its place has none.
    """
    from peft.tuners.lora import LoraLayer
    from torch.nn import Conv2d

    for layer in model.modules():
        inside = layer.get_base_layer() if isinstance(layer, LoraLayer) else None
        if isinstance(inside, Conv2d):
            for name in ("stride", "kernel_size", "dilation"):
                setattr(layer, name, getattr(inside, name))
    return model
