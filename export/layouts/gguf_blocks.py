"""The quantized matrices of a bundle's graph as tensors of a GGUF file: the weights that the gate has judged.

Blocks of 32 or a multiple keep every level and scale: 4 bits as Q4_1, or Q4_0 where zero is the middle level, 8 bits as
Q8_0. Narrower blocks, and 8 bits with zero points as earlier releases wrote them, are rounded once more to Q8_0. The
graph's names are the exporter's, and it packs queries with keys and values: a matrix is recognized by its values.
Sources: ggml-quants.c (block_q4_0, block_q4_1, block_q8_0). Needs the floor and `onnx_ir`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.gptq.rounding import Blocks, Grid
from edgetune.compress.gptq.stored import read_blocks
from edgetune.export.stepwise.weights import Weight
from edgetune.serve.errors import MissingDependency

FloatArray = NDArray[np.float32]
# Weights that share a scale in every type that is written here.
BLOCK = 32
# Of the merged weights: what rounding to 4 bits leaves is below a fifth of them, another matrix lies as far as both are
# long.
MOST_RELATIVE_ERROR = 0.5


@dataclass(frozen=True)
class Part:
    """The rows of a quantized matrix that are one tensor of the merged model."""

    blocks: Blocks
    start: int
    rows: int

    def taken(self) -> Blocks:
        """These rows alone."""
        rows, grid = slice(self.start, self.start + self.rows), self.blocks.grid
        return Blocks(
            self.blocks.levels[rows], Grid(grid.scales[rows], grid.zeros[rows], grid.bits), self.blocks.inputs
        )


def quantized_parts(graph: Path, weights: Mapping[str, Callable[[], FloatArray]]) -> dict[str, Part]:
    """For each weight (outputs, inputs) that is read by its name, where in the quantized matrices of a graph it lies.

    Those that the graph keeps in floats are left out.

    Raises:
        MissingDependency: `onnx_ir`, which reads the graph, is not installed.
    """
    firsts = {name: read()[0] for name, read in weights.items()}
    parts: dict[str, Part] = {}
    try:
        for _, blocks in read_blocks(graph):
            restored = blocks.restored()
            fitting = (name for name, row in firsts.items() if name not in parts and len(row) == blocks.inputs)
            for name in list(fitting):
                start = _place_of(firsts[name], weights[name], restored)
                if start is not None:
                    parts[name] = Part(blocks, start, len(weights[name]()))
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"The package {error.name}, which reads the bundle's graph, is not installed.",
            action="pip install 'edgetune[build]'",
        ) from error
    return parts


def _place_of(first: FloatArray, read: Callable[[], FloatArray], restored: FloatArray) -> int | None:
    """At which row of a matrix (outputs, inputs) a weight begins whose first row is `first`; None where it does not."""
    start = int(np.square(restored - first).sum(axis=1).argmin())
    if np.linalg.norm(restored[start] - first) > MOST_RELATIVE_ERROR * np.linalg.norm(first):
        return None
    values = read()
    part = restored[start : start + len(values)]
    near = len(part) == len(values) and np.linalg.norm(part - values) <= MOST_RELATIVE_ERROR * np.linalg.norm(values)
    return start if near else None


def type_name(blocks: Blocks) -> str:
    """The type of GGUF that carries a matrix: "Q4_0", "Q4_1" or "Q8_0", or "F32" where its width fits no block."""
    if blocks.inputs % BLOCK:
        return "F32"
    if blocks.grid.bits == 8 or blocks.block % BLOCK:
        return "Q8_0"
    return "Q4_0" if blocks.grid.is_symmetric else "Q4_1"


def encoded(blocks: Blocks, order: Callable[[Any], Any], gguf: Any) -> NDArray[Any]:
    """The bytes of a tensor, (outputs, bytes of a row) uint8, or its values where no block fits.

    Args:
        blocks: the matrix.
        order: puts arrays (outputs, ...) into the order of rows that the file has.
        gguf: the package.
    """
    kind = type_name(blocks)
    if kind == "F32" or blocks.block % BLOCK or (kind == "Q8_0" and not blocks.grid.is_symmetric):
        values = np.ascontiguousarray(order(blocks.restored()))
        array: NDArray[Any] = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
        return array
    repeats = blocks.block // BLOCK
    count = blocks.inputs // BLOCK
    narrow = order(blocks.levels).reshape(len(blocks.levels), -1, BLOCK)[:, :count]
    scale = np.repeat(order(blocks.grid.scales), repeats, axis=1)[:, :count]
    zeros = np.repeat(order(blocks.grid.zeros), repeats, axis=1)[:, :count]
    values_of_blocks = [scale] if blocks.grid.is_symmetric else [scale, -scale * zeros]
    halves = [one.astype(np.float16)[:, :, None].view(np.uint8) for one in values_of_blocks]
    return np.concatenate([*halves, _packed(narrow, blocks.grid.bits)], axis=2).reshape(len(narrow), -1)


def _packed(levels: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The levels (outputs, blocks, 32) of a file: signed bytes, or in 4 bits the second half's in the high bits."""
    if bits == 8:
        return levels ^ np.uint8(128)  # level - 128 as a signed byte
    return levels[:, :, : BLOCK // 2] | levels[:, :, BLOCK // 2 :] << np.uint8(4)


def readers(weights: Iterable[tuple[str, Weight, bool]]) -> dict[str, Callable[[], FloatArray]]:
    """How to read each matrix as (outputs, inputs): names, weights, and whether they are stored transposed."""

    def reader(weight: Weight, transposed: bool) -> Callable[[], FloatArray]:
        return lambda: np.ascontiguousarray(weight.read().T) if transposed else weight.read()

    return {name: reader(weight, flipped) for name, weight, flipped in weights if len(weight.shape) == 2}
