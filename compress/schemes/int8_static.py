"""Static int8: the ranges of activations fixed beforehand on training texts, weights int8 by output channel."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.compress.material import Material

LEAST_TEXTS = 16


def unsuitable(material: Material) -> str:
    """It needs the CPU's kernels, and texts to measure ranges on."""
    if material.provider != "cpu":
        return "its kernels run on a CPU only"
    texts = len(set(material.train.texts))
    return (
        "" if texts >= LEAST_TEXTS else f"{texts} training texts are too few to fix ranges by; it takes {LEAST_TEXTS}"
    )


def compress(graph: Path, target: Path, material: Material) -> str:
    """Find the plan that stays nearest to the float logits, and write the graph with it.

    Raises:
        CompressError: the graph has no linear layers, or none of the plans gives finite logits.
    """
    if not material.reads_text:
        from edgetune.compress.convolutions import MOST_SHARE, convolution_share, quantize_nearest

        if convolution_share(graph) >= MOST_SHARE:
            return quantize_nearest(graph, target, material)
    from edgetune.compress.static_graph import write_planned
    from edgetune.compress.static_search import described, search

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        result = search(graph, material, Path(scratch))
        write_planned(result.graph, result.plan, target, tables=True)
    return described(result)
