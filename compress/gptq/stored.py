"""Quantized matrices read back from a decoder graph's file: the levels and scales that writer.py put there.

For engines with graphs of their own, which take the very weights that were judged. Must not import onnx_ir at module
level.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune.compress.gptq.graph_file import open_graph
from edgetune.compress.gptq.rounding import Blocks, ByteArray, FloatArray, Grid

if TYPE_CHECKING:
    import onnx_ir

# Where the two operators have levels, scales and zero points among their inputs.
STORED_INPUTS = {"MatMulNBits": (1, 2, 3), "GatherBlockQuantized": (0, 2, 3)}


def stored_values(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """The initializers in which a quantized operator's matrix lies: levels, scales, and zero points if any."""
    values = []
    for place in STORED_INPUTS[node.op_type]:
        value = node.inputs[place] if place < len(node.inputs) else None
        while value is not None and value.const_value is None and value.producer() is not None:
            value = value.producer().inputs[0]
        if value is not None and value.const_value is not None:
            values.append(value)
    return values


def read_blocks(graph: Path) -> Iterator[tuple[str, Blocks]]:
    """Each quantized matrix of a graph once, by the name of its levels, as it was written."""
    read: set[str] = set()
    for node in open_graph(graph).graph:
        if node.op_type not in STORED_INPUTS:
            continue
        stored = stored_values(node)
        name = str(stored[0].name)
        if name not in read:
            read.add(name)
            yield name, _blocks(node, *(value.const_value.numpy() for value in stored))


def _blocks(node: onnx_ir.Node, levels: ByteArray, scales: FloatArray, zeros: ByteArray | None = None) -> Blocks:
    bits, block = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 128)
    rows = len(levels)
    scales = scales.reshape(rows, -1).astype(np.float32)
    blocks = scales.shape[1]
    wide = _unpacked(levels.reshape(rows, -1), bits).reshape(rows, blocks, block)
    inputs = node.attributes.get_int("K") if node.op_type == "MatMulNBits" else blocks * block
    if zeros is None:
        whole_zeros = np.full_like(scales, 2 ** (bits - 1))
    else:
        whole_zeros = _unpacked(zeros.reshape(rows, -1), bits)[:, :blocks].astype(np.float32)
    return Blocks(wide, Grid(scales, whole_zeros, bits), inputs)


def _unpacked(packed: ByteArray, bits: int) -> ByteArray:
    """Bytes (rows, n) as levels (rows, n * 8 / bits): of two in a byte the first is in the low half."""
    if bits == 8:
        return packed
    return np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1).reshape(len(packed), -1)
