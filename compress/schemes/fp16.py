"""Half precision for a GPU: fp16, with the nodes that overflow on training texts kept in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.compress.material import Material


def unsuitable(material: Material) -> str:
    """It is for a GPU."""
    if material.provider == "cuda":
        return ""
    return "the CPU provider has no fp16 kernels for most operators: casts around them make it slower than fp32"


def compress(graph: Path, target: Path, material: Material) -> str:
    """Write `graph` in fp16 into `target`.

    Raises:
        CompressError: the logits are not finite whatever is kept in fp32.
    """
    from edgetune.compress.half import compress_half

    return compress_half(graph, target, material, "fp16")
