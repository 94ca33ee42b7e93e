"""bfloat16 for a GPU: fp32's range in half the bytes; operators without a CUDA kernel for it stay in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.compress.material import Material


def unsuitable(material: Material) -> str:
    """It is for a GPU."""
    return "" if material.provider == "cuda" else "the CPU provider has no bf16 kernels: a session does not open"


def compress(graph: Path, target: Path, material: Material) -> str:
    """Write `graph` in bf16 into `target`.

    Raises:
        CompressError: the logits are not finite.
    """
    from edgetune.compress.half import compress_half

    return compress_half(graph, target, material, "bf16")
