"""Mean pooling as one product: the mask, normed to a sum of one, times the token states.

The exporter leaves seven nodes over all states (mask, multiply, sum, count, clip, divide); a norm of the mask and one
product of (1, tokens) by (tokens, width) a text give the same, a row without any token included: it pools to zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetune.compress.fusion.surgery import add_constant, graph_input, nodes_of, produced_by, put, scalar, swap

if TYPE_CHECKING:
    import onnx_ir


def fuse_mean_pooling(model: onnx_ir.Model, provider: str = "cpu") -> None:
    """Rewrite `sum(states * mask) / max(sum(mask), 1)`, where the model has it.

    Args:
        model: rewritten in place.
        provider: "cpu" or "cuda", which has no kernel for LpNormalization.
    """
    mask = graph_input(model, "attention_mask")
    for division in nodes_of(model, "Div"):
        total = produced_by(division.inputs[0], "ReduceSum")
        count = produced_by(division.inputs[1], "Max", "Clip")
        weighed = produced_by(total and total.inputs[0], "Mul")
        counted = produced_by(count and count.inputs[0], "ReduceSum")
        if weighed is None or counted is None or mask is None or scalar(count.inputs[1]) != 1:
            continue
        if not (_over_tokens(total) and _over_tokens(counted)):
            continue
        weights = counted.inputs[0]
        if weights not in weighed.inputs or not _is_float_mask(weights, mask):
            continue
        states = next(value for value in weighed.inputs if value is not weights)
        _rewrite(model, division, states, mask, provider)


def _over_tokens(node: onnx_ir.Node) -> bool:
    keeps = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    return scalar(node.inputs[1]) == 1 and keeps == 0


def _is_float_mask(value: onnx_ir.Value, mask: onnx_ir.Value) -> bool:
    """Whether `value` is the mask, (batch, tokens, 1) float32."""
    cast = produced_by(value, "Cast")
    unsqueeze = produced_by(cast and cast.inputs[0], "Unsqueeze")
    return unsqueeze is not None and unsqueeze.inputs[0] is mask and scalar(unsqueeze.inputs[1]) in (-1, 2)


def _rewrite(
    model: onnx_ir.Model, division: onnx_ir.Node, states: onnx_ir.Value, mask: onnx_ir.Value, provider: str
) -> None:
    import onnx_ir

    name = division.outputs[0].name
    axis = add_constant(model, "fused.axis_1", np.array([1], np.int64))
    row = put(model, division, "Unsqueeze", [mask, axis], f"{name}.mask")  # (batch, 1, tokens)
    row = put(model, division, "Cast", [row], f"{name}.mask_float", attributes={"to": onnx_ir.DataType.FLOAT.value})
    if provider == "cpu":
        row = put(model, division, "LpNormalization", [row], f"{name}.weights", attributes={"axis": 2, "p": 1})
    else:
        last = add_constant(model, "fused.axis_2", np.array([2], np.int64))
        one = add_constant(model, "fused.one", np.array(1, np.float32))
        count = put(model, division, "ReduceSum", [row, last], f"{name}.count", attributes={"keepdims": 1})
        count = put(model, division, "Max", [count, one], f"{name}.count_or_one")
        row = put(model, division, "Div", [row, count], f"{name}.weights")
    pooled = put(model, division, "MatMul", [row, states], f"{name}.pooled")  # (batch, 1, width)
    swap(division.outputs[0], put(model, division, "Squeeze", [pooled, axis], f"{name}.mean"))
    model.graph.remove(division, safe=True)
