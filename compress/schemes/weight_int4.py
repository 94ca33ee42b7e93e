"""Weights in 4 bits by block, activations in float: for models that are bound by reading their weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.compress.material import Material


def unsuitable(material: Material) -> str:
    """It does not pay for small encoders on a CPU."""
    from edgetune.compress.weight_only import too_small

    return too_small(material)


def compress(graph: Path, target: Path, material: Material) -> str:
    """Quantize linear layers and tables of `graph` into `target`.

    Raises:
        CompressError: there is nothing to quantize, or the logits are not finite.
    """
    from edgetune.compress.weight_only import compress_weights

    return compress_weights(graph, target, material, bits=4)
