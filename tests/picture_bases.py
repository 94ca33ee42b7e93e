"""Tiny random models for pictures, in real classes with their own image processors, and pictures told by colour.

Each function fills a folder and returns it; 32 pixels a side, so that a build takes seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDE = 32
COLOURS = {"amber": (230, 150, 20), "blue": (20, 40, 220), "green": (30, 190, 60)}


def write_pictures(folder: Path, each: int = 24, kind: str = "png") -> Path:
    """A folder of pictures a class: a colour that varies, with noise, in several shapes."""
    import numpy as np
    from PIL import Image

    chosen = random.Random(5)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for number in range(each):
            draw = np.random.default_rng(chosen.randint(0, 2**31))
            height, width = chosen.randint(24, 60), chosen.randint(24, 60)
            # Blocks and not pixels of noise: their thumbnails differ, as those of real pictures do.
            blocks = draw.normal(0, 45, (6, 6, 1)).repeat(10, axis=0).repeat(10, axis=1)[:height, :width]
            levels = np.clip(np.array(colour) + blocks + draw.normal(0, 12, (height, width, 3)), 0, 255)
            Image.fromarray(levels.astype(np.uint8)).save(folder / label / f"{number:03}.{kind}")
    return folder


def _write(folder: Path, model: Any, processor: Any) -> Path:
    import torch

    model.eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # as after some training, and not the identity
                module.running_mean.normal_(0, 0.05)
                module.running_var.uniform_(0.6, 1.4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _resnet(folder: Path) -> Path:
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return _write(
        folder,
        ResNetForImageClassification(config),
        ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=0.9),
    )


def _mobilenet_v2(folder: Path) -> Path:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, MobileNetV2ImageProcessorPil

    config = MobileNetV2Config(image_size=SIDE, depth_multiplier=0.35, classifier_dropout_prob=0.8)
    processor = MobileNetV2ImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return _write(folder, MobileNetV2ForImageClassification(config), processor)


def _transformer() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": SIDE,
        "patch_size": 8,
        "initializer_range": 0.15,
    }


def _vit(folder: Path) -> Path:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    size = {"height": SIDE, "width": SIDE}
    return _write(folder, ViTForImageClassification(ViTConfig(**_transformer())), ViTImageProcessorPil(size=size))


def _deit(folder: Path) -> Path:
    from transformers import DeiTConfig, DeiTForImageClassification, DeiTImageProcessorPil

    processor = DeiTImageProcessorPil(size={"height": 40, "width": 40}, crop_size={"height": SIDE, "width": SIDE})
    return _write(folder, DeiTForImageClassification(DeiTConfig(**_transformer())), processor)


def _convnext(folder: Path) -> Path:
    from transformers import ConvNextConfig, ConvNextForImageClassification, ConvNextImageProcessorPil

    config = ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], initializer_range=0.15)
    processor = ConvNextImageProcessorPil(size={"shortest_edge": SIDE})
    return _write(folder, ConvNextForImageClassification(config), processor)


def _efficientnet(folder: Path) -> Path:
    from transformers import EfficientNetConfig, EfficientNetForImageClassification, EfficientNetImageProcessorPil

    config = EfficientNetConfig(
        image_size=SIDE, width_coefficient=0.1, hidden_dim=128, kernel_sizes=[3, 3], in_channels=[32, 16],
        out_channels=[16, 24], strides=[1, 2], num_block_repeats=[1, 1], expand_ratios=[1, 2], depthwise_padding=[],
    )  # fmt: skip
    processor = EfficientNetImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _write(folder, EfficientNetForImageClassification(config), processor)


def _swin(folder: Path) -> Path:
    from transformers import SwinConfig, SwinForImageClassification, ViTImageProcessorPil

    config = SwinConfig(
        image_size=SIDE, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4,
        initializer_range=0.15,
    )  # fmt: skip
    size = {"height": SIDE, "width": SIDE}
    return _write(folder, SwinForImageClassification(config), ViTImageProcessorPil(size=size))


def _mobilevit(folder: Path) -> Path:
    from transformers import MobileViTConfig, MobileViTForImageClassification, MobileViTImageProcessorPil

    config = MobileViTConfig(
        image_size=SIDE, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 32],
        num_attention_heads=2, initializer_range=0.15,
    )  # fmt: skip
    processor = MobileViTImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": SIDE, "width": SIDE})
    return _write(folder, MobileViTForImageClassification(config), processor)


PICTURE_BASES: dict[str, Callable[[Path], Path]] = {
    "resnet": _resnet,
    "mobilenet_v2": _mobilenet_v2,
    "vit": _vit,
    "deit": _deit,
    "convnext": _convnext,
    "efficientnet": _efficientnet,
    "swin": _swin,
    "mobilevit": _mobilevit,
}
