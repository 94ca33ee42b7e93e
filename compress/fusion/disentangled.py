"""DeBERTa's attention: its products of positions stay what they are and become the bias of one MultiHeadAttention.

The exporter joins batch and heads to one axis, masks by Where and divides keys by the scale; the operator takes query,
key and value as the linear layers left them, the padding mask itself, and any bias (batch, heads, tokens, tokens).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.compress.fusion.evaluate import LENGTHS, dependencies
from edgetune.compress.fusion.surgery import (
    MICROSOFT,
    constant,
    graph_input,
    nodes_of,
    only_use,
    produced_by,
    put,
    scalar,
    shared_cast,
    swap,
)

if TYPE_CHECKING:
    import onnx_ir

_MASK = frozenset({"attention_mask"})


def fuse_disentangled_attention(model: onnx_ir.Model) -> None:
    """Fuse each `softmax(where(padding, low, reshape(q k / scale + bias))) v` over joined batch and heads."""
    marks = dependencies(model)
    for softmax in nodes_of(model, "Softmax"):
        masked = produced_by(softmax.inputs[0], "Where")
        if masked is None or marks.get(masked.inputs[0]) not in (_MASK, _MASK | LENGTHS):
            continue
        low, split = scalar(masked.inputs[1]), produced_by(masked.inputs[2], "Reshape")
        total = produced_by(split.inputs[0], "Add") if split is not None else None
        if low is None or low > -1e4 or total is None:
            continue
        score = _scores(total.inputs[0])
        value, end = _weighed(softmax)
        if score is not None and value is not None and end is not None:
            _rewrite(model, end, score, value, (total.inputs[1], split.inputs[1]))


def _scores(value: onnx_ir.Value) -> tuple[Any, Any, float, int] | None:
    """Query and key (batch, tokens, width), scale and heads of `q transpose(k) / c`."""
    product = produced_by(value, "MatMul")
    division = produced_by(product.inputs[1], "Div") if product is not None else None
    turned = produced_by(division.inputs[0], "Transpose") if division is not None else None
    if product is None or division is None or turned is None or list(turned.attributes["perm"].as_ints()) != [0, 2, 1]:
        return None
    query, key, divisor = _unflattened(product.inputs[0]), _unflattened(turned.inputs[0]), scalar(division.inputs[1])
    if query is None or key is None or query[1] != key[1] or not divisor:
        return None
    return query[0], key[0], 1 / divisor, query[1]


def _unflattened(value: onnx_ir.Value) -> tuple[Any, int] | None:
    """The (batch, tokens, width) value behind `reshape(transpose(reshape(x, [.., heads, -1])), [-1, ..])`."""
    flat = produced_by(value, "Reshape")
    turned = produced_by(flat.inputs[0], "Transpose") if flat is not None else None
    split = produced_by(turned.inputs[0], "Reshape") if turned is not None else None
    if turned is None or split is None or list(turned.attributes["perm"].as_ints()) != [0, 2, 1, 3]:
        return None
    sizes = produced_by(split.inputs[1], "Concat")
    heads = constant(sizes.inputs[2]) if sizes is not None and len(sizes.inputs) == 4 else None
    return None if heads is None or heads[0] < 1 else (split.inputs[0], int(heads[0]))


def _weighed(softmax: onnx_ir.Node) -> tuple[Any, Any]:
    """The value (batch, tokens, width) that the softmax weighs, and the last node of joining the heads again."""
    chain, value = ["Reshape", "MatMul", "Reshape", "Transpose", "Reshape"], None
    node = softmax
    for operator in chain:
        after = only_use(node.outputs[0])
        if after is None or after.op_type != operator:
            return None, None
        if operator == "MatMul":
            if after.inputs[0] is not node.outputs[0]:
                return None, None
            operands = _unflattened(after.inputs[1])
            value = None if operands is None else operands[0]
        node = after
    return value, node


def _rewrite(
    model: onnx_ir.Model,
    end: onnx_ir.Node,
    score: tuple[Any, Any, float, int],
    value: onnx_ir.Value,
    bias: tuple[Any, Any],
) -> None:
    query, key, scale, heads = score
    name = end.outputs[0].name
    padding = shared_cast(model, graph_input(model, "attention_mask"), "INT32", end)
    by_head = put(model, end, "Reshape", list(bias), f"{name}.bias")  # (batch, heads, tokens, tokens)
    attributes = {"num_heads": heads, "scale": scale}
    inputs = [query, key, value, None, padding, by_head]
    made = put(model, end, "MultiHeadAttention", inputs, f"{name}.attention", attributes=attributes, domain=MICROSOFT)
    swap(end.outputs[0], made)
