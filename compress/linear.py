"""Linear layers of a graph: the product with its constant matrix, and the bias wherever the exporter has put it.

What every scheme that replaces weights looks for, so it is found in one place. onnx_ir is imported by the callers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.fusion.surgery import constant, nodes_of, only_use


@dataclass(frozen=True)
class Linear:
    """`output = x @ weight + bias`.

    Attributes:
        node: the MatMul or Gemm.
        x: its input, an `onnx_ir.Value` (..., rows).
        weight: (rows, columns) float32.
        bias: (columns,) float32, or None.
        output: the value that holds the result, the bias in it where there is one.
        bias_node: the node whose only work is to add the bias, or None.
    """

    node: Any
    x: Any
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    output: Any
    bias_node: Any = None


def linear_layers(model: Any) -> Iterator[Linear]:
    """All linear layers of an `onnx_ir.Model`, first to last; safe to edit meanwhile."""
    for node in nodes_of(model, "MatMul", "Gemm"):
        weight = constant(node.inputs[1])
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or constant(node.inputs[0]) is not None:
            continue
        layer = _matmul(node, weight) if node.op_type == "MatMul" else _gemm(node, weight)
        if layer is not None:
            yield layer


def _matmul(node: Any, weight: NDArray[np.float32]) -> Linear:
    plain = Linear(node, node.inputs[0], weight, None, node.outputs[0])
    after = only_use(node.outputs[0])
    if after is None or after.op_type != "Add":
        return plain
    other = after.inputs[1] if after.inputs[0] is node.outputs[0] else after.inputs[0]
    bias = constant(other)
    if bias is None or bias.shape != (weight.shape[1],):
        return plain
    return Linear(node, node.inputs[0], weight, bias, after.outputs[0], after)


def _gemm(node: Any, weight: NDArray[np.float32]) -> Linear | None:
    def attribute(name: str, default: float) -> float:
        stored = node.attributes.get(name)
        return default if stored is None else float(stored.value)

    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    columns = weight.shape[0] if attribute("transB", 0) else weight.shape[1]
    if attribute("transA", 0) or attribute("alpha", 1) != 1 or (has_bias and attribute("beta", 1) != 1):
        return None
    if has_bias and (bias is None or bias.size not in (1, columns)):
        return None
    matrix = weight.T if attribute("transB", 0) else weight
    row = None if bias is None else np.broadcast_to(bias.reshape(-1), (columns,))
    return Linear(node, node.inputs[0], matrix, row, node.outputs[0])
