"""Weights rounded to the nearest of 16 or 256 levels, block by block, and their bytes as ONNX Runtime reads them.

The levels of a block are spaced evenly, 0 exactly one of them, so a block has a scale and a zero point. In 8 bits that
is always the middle level, and is not stored: 3% of the file, for a KL divergence of 0.00083 nats instead of 0.00076 on
stories260K, and Q8_0 of llama.cpp then has the same levels. In 4 bits it costs 0.012 of top-1 agreement (0.841 for
0.853), so there it is done only where it is asked for, as Q4_0 of llama.cpp. Must not import onnx_ir at module level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]
Range = tuple[FloatArray, FloatArray]  # scales and zero points of blocks
# Ranges tried for a block, as shares of the whole one: clipping a lone large weight serves the others better where the
# levels are few. On stories260K half as many shares in 4 bits cost 0.4 points of top-1 agreement; 8 bits never clip.
SHARES = {4: tuple(1 - 0.025 * step for step in range(17)), 8: (1.0,)}
# Rows are worked on in parts of so many weights, so that what is made of them takes a few dozen megabytes.
_ENTRIES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Grid:
    """The levels of every block: `scale * (level - zero)`.

    Attributes:
        scales: (outputs, blocks) float32, each a value that float16 holds too unless it is larger than those.
        zeros: (outputs, blocks) float32 whole numbers, the level that stands for 0.
        bits: 4 or 8.
    """

    scales: FloatArray
    zeros: FloatArray
    bits: int

    @property
    def is_symmetric(self) -> bool:
        """Whether every zero point is the middle level, which the operators take where none is given."""
        return bool((self.zeros == 2 ** (self.bits - 1)).all())


@dataclass(frozen=True)
class Blocks:
    """A weight matrix on its grid.

    Attributes:
        levels: (outputs, blocks, block) uint8; what pads the last block has the level of 0.
        grid: what the levels mean.
        inputs: columns of the matrix, without the padding.
    """

    levels: ByteArray
    grid: Grid
    inputs: int

    @property
    def block(self) -> int:
        """Weights that share a scale."""
        return int(self.levels.shape[2])

    def restored(self) -> FloatArray:
        """The weights that the levels stand for, (outputs, inputs) float32."""
        values = (self.levels - self.grid.zeros[:, :, None]) * self.grid.scales[:, :, None]
        whole: FloatArray = values.reshape(len(values), -1)[:, : self.inputs].astype(np.float32)
        return whole

    def packed(self) -> ByteArray:
        """(outputs, blocks, block * bits / 8) uint8; of two levels in a byte the first is in the low half."""
        return self.levels if self.grid.bits == 8 else _halves(self.levels)

    def packed_zeros(self) -> ByteArray:
        """(outputs, blocks * bits / 8 rounded up) uint8."""
        zeros = self.grid.zeros.astype(np.uint8)
        return zeros if self.grid.bits == 8 else _halves(zeros)

    @property
    def stored_bytes(self) -> int:
        """Of levels, float16 scales, and zero points where they are stored."""
        zeros = 0 if self.grid.is_symmetric else self.packed_zeros().nbytes
        return self.levels.size * self.grid.bits // 8 + 2 * self.grid.scales.size + zeros


def _halves(levels: ByteArray) -> ByteArray:
    if levels.shape[-1] % 2:
        levels = np.concatenate([levels, np.zeros_like(levels[..., :1])], axis=-1)
    return (levels[..., ::2] | levels[..., 1::2] << np.uint8(4)).astype(np.uint8)


def in_blocks(weight: FloatArray, block: int) -> FloatArray:
    """(outputs, inputs) float32 as (outputs, blocks, block), the last block filled up with zeros."""
    short = -weight.shape[1] % block
    padded = np.pad(weight, ((0, 0), (0, short))) if short else weight
    return padded.reshape(len(weight), -1, block)


def find_grid(
    weight: FloatArray, bits: int, block: int, *, importance: FloatArray | None = None, symmetric: bool = False
) -> Grid:
    """The grid on which rounding loses least, among the ranges of `SHARES`.

    Args:
        weight: (outputs, inputs) float32.
        bits: 4 or 8.
        block: weights that share a scale.
        importance: (inputs,) float32, how much an error in that column counts; None for all alike.
        symmetric: zero is the middle level, as it always is in 8 bits.
    """
    range_of = _symmetric_range if symmetric or bits == 8 else _range
    outputs = len(weight)
    blocks = -(-weight.shape[1] // block)
    scales, zeros = np.empty((outputs, blocks), np.float32), np.empty((outputs, blocks), np.float32)
    weights = np.ones(weight.shape[1], np.float32) if importance is None else importance
    counts = in_blocks(weights[None, :], block)
    step = max(1, _ENTRIES_AT_ONCE // weight.shape[1])
    for start in range(0, outputs, step):
        rows = slice(start, start + step)
        scales[rows], zeros[rows] = _best_range(in_blocks(weight[rows], block), counts, bits, range_of)
    return Grid(scales, zeros, bits)


def _best_range(
    blocks: FloatArray, counts: FloatArray, bits: int, range_of: Callable[[FloatArray, float, int], Range]
) -> Range:
    best = np.full(blocks.shape[:2], np.inf, np.float32)
    scales, zeros = np.ones_like(best), np.zeros_like(best)
    for share in SHARES[bits]:
        scale, zero = range_of(blocks, share, bits)
        error = _on_levels(blocks, scale[:, :, None], zero[:, :, None], 2**bits - 1)
        error -= zero[:, :, None]
        error *= scale[:, :, None]
        error -= blocks
        np.square(error, out=error)
        error *= counts
        total = error.sum(axis=2)
        better = total < best
        best[better], scales[better], zeros[better] = total[better], scale[better], zero[better]
    return scales, zeros


def _range(blocks: FloatArray, share: float, bits: int) -> Range:
    low = np.minimum(blocks.min(axis=2), 0) * np.float32(share)
    high = np.maximum(blocks.max(axis=2), 0) * np.float32(share)
    scale = in_half(np.where(high > low, (high - low) / (2**bits - 1), 1).astype(np.float32))
    return scale, np.rint(-low / scale).astype(np.float32)


def _symmetric_range(blocks: FloatArray, share: float, bits: int) -> Range:
    """Zero in the middle, and the largest weight on the lowest level, of which there is one more below than above.

    The scale of a block whose largest weight is positive is negative then (ggml-quants.c, quantize_row_q4_0). Of 8
    bits the lowest level is left unused instead (quantize_row_q8_0).
    """
    low, high = blocks.min(axis=2), blocks.max(axis=2)
    steps = 2 ** (bits - 1)
    scale = np.where(high > -low, -high, -low) / steps if bits == 4 else np.maximum(high, -low) / (steps - 1)
    size = in_half(np.where(scale == 0, 1, np.abs(scale) * share).astype(np.float32))
    return np.where(scale < 0, -size, size), np.full_like(size, steps)


def in_half(scales: FloatArray) -> FloatArray:
    """The next larger value of float16 for each positive scale, which still spans its block; float32.

    A file then stores two bytes for a scale instead of four: of blocks of 32 in 4 bits a tenth. What is beyond the
    range of float16 stays as it is.
    """
    with np.errstate(over="ignore"):
        half = scales.astype(np.float16)
    short = half.astype(np.float32) < scales
    half[short] = np.nextafter(half[short], np.float16(np.inf))
    rounded: FloatArray = half.astype(np.float32)
    return np.where(np.isfinite(rounded), rounded, scales)


def _on_levels(weight: FloatArray, scale: FloatArray, zero: FloatArray, top: int) -> FloatArray:
    levels: FloatArray = np.rint(weight / scale)
    levels += zero
    return np.clip(levels, 0, top, out=levels)


def nearest(weight: FloatArray, bits: int, block: int, *, symmetric: bool = False) -> Blocks:
    """Each weight to the nearest level of its block; arguments as for `find_grid`."""
    grid = find_grid(weight, bits, block, symmetric=symmetric)
    levels = np.empty((*grid.scales.shape, block), np.uint8)
    step = max(1, _ENTRIES_AT_ONCE // weight.shape[1])
    for start in range(0, len(weight), step):
        rows = slice(start, start + step)
        scale, zero = grid.scales[rows, :, None], grid.zeros[rows, :, None]
        levels[rows] = _on_levels(in_blocks(weight[rows], block), scale, zero, 2**bits - 1)
    return Blocks(levels, grid, weight.shape[1])


def column_levels(column: FloatArray, grid: Grid, block: int) -> FloatArray:
    """The levels of one column of a matrix, (outputs,) float32, on the scales of its `block`-th blocks."""
    return _on_levels(column, grid.scales[:, block], grid.zeros[:, block], 2**grid.bits - 1)
