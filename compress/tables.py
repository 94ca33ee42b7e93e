"""Embedding tables in 4 bits, read by GatherBlockQuantized: one scale a block of a row, for the weight-only scheme.

`compress/int8.py` has the tables in 8 bits, with one scale a row. Must not import onnx at module level.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.fusion.surgery import MICROSOFT, add_constant, constant, nodes_of
from edgetune.compress.layers import replace

# A smaller table saves nothing worth a kernel.
_LEAST_ROWS = 32
_BLOCK = 32


def quantize_tables_int4(model: Any) -> None:
    """Put the large embedding tables of an `onnx_ir.Model` in 4 bits, in place."""
    import onnx_ir

    for node in nodes_of(model, "Gather"):
        rows = constant(node.inputs[0])
        if node.attributes.get_int("axis", 0) or rows is None or not _is_large_table(rows):
            continue
        name = node.inputs[0].name
        packed, scales = quantize_rows(rows)
        inputs = [
            add_constant(model, f"{name}.uint4", packed),
            node.inputs[1],
            add_constant(model, f"{name}.scales", scales),
        ]
        attributes = {"bits": 4, "block_size": _BLOCK, "gather_axis": 0, "quantize_axis": 1}
        replace(model, [node], [onnx_ir.node("GatherBlockQuantized", inputs, attributes=attributes, domain=MICROSOFT)])


def _is_large_table(rows: NDArray[Any]) -> bool:
    return rows.ndim == 2 and rows.dtype == np.float32 and len(rows) >= _LEAST_ROWS and rows.shape[1] % _BLOCK == 0


def quantize_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Rows in 4 bits, 8 standing for zero, with one scale for each 32 entries.

    Args:
        rows: (rows, width) float32; 32 divides the width.

    Returns:
        (rows, width / 2) uint8, two entries each, the first in the low half, and the scales (rows, width / 32).
    """
    blocks = rows.reshape(len(rows), -1, _BLOCK)
    largest = np.abs(blocks).max(axis=2)
    scales = np.where(largest > 0, largest / 7, 1).astype(np.float32)
    values = (np.clip(np.rint(blocks / scales[:, :, None]), -7, 7) + 8).astype(np.uint8).reshape(rows.shape)
    return values[:, ::2] | values[:, 1::2] << 4, scales
