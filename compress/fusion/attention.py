"""Attention with a bias (MPNet's relative positions, ModernBERT's windows) as one MultiHeadAttention.

What the exporter leaves in products, transpositions and reshapings becomes one node, its mask the padding mask itself
and its bias a look-up by distance. That a mask is nothing but padding, or padding and distance, is found by computing
it: its form in the graph changes with each release of transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.compress.fusion.evaluate import LENGTHS, dependencies, evaluate, ones
from edgetune.compress.fusion.positions import look_up_distances, table_of_distances
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

_HEADS_FIRST = [0, 2, 1, 3]
_MASK = frozenset({"attention_mask"})


def fuse_attention(model: onnx_ir.Model, max_tokens: int) -> None:
    """Fuse each `softmax(scale * q k + bias + mask) v` of heads that were split by reshaping."""
    masks: dict[Any, Any] = {}
    for softmax in nodes_of(model, "Softmax"):
        _fuse_one(model, softmax, max_tokens, masks)


def _fuse_one(model: onnx_ir.Model, softmax: onnx_ir.Node, max_tokens: int, masks: dict[Any, Any]) -> None:
    total = produced_by(softmax.inputs[0], "Add")
    product = only_use(softmax.outputs[0])
    turned = product and only_use(product.outputs[0])
    if total is None or product is None or product.op_type != "MatMul" or product.inputs[0] is not softmax.outputs[0]:
        return
    if turned is None or turned.op_type != "Transpose" or _order(turned) != _HEADS_FIRST:
        return
    joined = _last_reshape(turned)
    value = _heads(product.inputs[1], _HEADS_FIRST)
    bias, score = None, _scores(total.inputs[0])
    if score is None and (inner := produced_by(total.inputs[0], "Add")) is not None:
        bias, score = inner.inputs[1], _scores(inner.inputs[0])
    if score is None or value is None or joined is None:
        return
    query, key, scale, heads = score
    mask = total.inputs[1]
    if mask not in masks:
        masks[mask] = _padding_and_bias(model, softmax, mask, max_tokens)
    if masks[mask] is None:
        return
    padding, window = masks[mask]
    if bias is not None and window is not None:
        return
    bias = bias if bias is not None else window
    expand = produced_by(bias, "Expand")
    bias = bias if expand is None else expand.inputs[0]  # the operator repeats it over the batch by itself
    inputs = [query, key, value[0], None, padding, bias]
    attributes = {"num_heads": heads, "scale": scale}
    name = joined.outputs[0].name
    made = put(
        model, joined, "MultiHeadAttention", inputs, f"{name}.attention", attributes=attributes, domain=MICROSOFT
    )
    swap(joined.outputs[0], made)


def _last_reshape(turned: Any) -> Any:
    """The last of the reshapings behind the product, which join the heads; None where there is none."""
    reshape, after = None, only_use(turned.outputs[0])
    while after is not None and after.op_type == "Reshape":
        reshape, after = after, only_use(after.outputs[0])
    return reshape if reshape is not None and _target_rank(reshape) == 3 else None


def _target_rank(reshape: Any) -> int | None:
    array, joined = constant(reshape.inputs[1]), produced_by(reshape.inputs[1], "Concat")
    if array is not None:
        return int(array.shape[0])
    return None if joined is None else len(joined.inputs)


def _order(node: onnx_ir.Node) -> list[int]:
    return list(node.attributes["perm"].as_ints())


def _scores(value: onnx_ir.Value) -> tuple[Any, Any, float, int] | None:
    """Query, key (both (batch, tokens, width)), scale and number of heads of `scale * q k`; else None."""
    scale, node = 1.0, produced_by(value, "Mul")
    if node is not None and scalar(node.inputs[1]) is not None:
        scale, value = float(scalar(node.inputs[1]) or 0), node.inputs[0]
    product = produced_by(value, "MatMul", "FusedMatMul")
    if product is None:
        return None
    if product.op_type == "FusedMatMul":
        if any(product.attributes[key].value for key in ("transA", "transB") if key in product.attributes):
            return None
        scale *= float(product.attributes["alpha"].value) if "alpha" in product.attributes else 1.0
    query, key = _heads(product.inputs[0], _HEADS_FIRST), _heads(product.inputs[1], [0, 2, 3, 1])
    if query is None or key is None or query[1] != key[1]:
        return None
    return query[0], key[0], scale, query[1]


def _heads(value: onnx_ir.Value, order: list[int]) -> tuple[Any, int] | None:
    """The (batch, tokens, width) value whose heads were split and brought forward, and their number."""
    turned = produced_by(value, "Transpose")
    if turned is None or _order(turned) != order:
        return None
    split = produced_by(turned.inputs[0], "Reshape")
    sizes = _last_sizes(split.inputs[1]) if split is not None else None
    width = _width(split.inputs[0]) if sizes is not None else None
    if sizes is None or width is None:
        return None
    heads = sizes[0] if sizes[0] > 0 else width // sizes[1]
    return (split.inputs[0], heads) if heads > 0 else None


def _last_sizes(shape: Any) -> tuple[int, int] | None:
    """Heads and their width of a target shape of four, where constants say so; one of them may be -1."""
    array = constant(shape)
    if array is None:
        joined = produced_by(shape, "Concat")
        parts = [constant(part) for part in joined.inputs] if joined is not None else []
        if len(parts) != 4 or parts[2] is None or parts[3] is None:
            return None
        return int(parts[2][0]), int(parts[3][0])
    return (int(array[2]), int(array[3])) if array.shape == (4,) else None


def _width(value: onnx_ir.Value) -> int | None:
    """The last size of a (batch, tokens, width) value, as far as the nodes before it tell."""
    for _ in range(8):
        node = value.producer()
        if node is None:
            return None
        if node.op_type in {"MatMul", "Gemm"}:
            weight = constant(node.inputs[1])
            return None if weight is None else int(weight.shape[1])
        if node.op_type == "Add":
            row = next((array for array in map(constant, node.inputs) if array is not None and array.ndim == 1), None)
            if row is not None:
                return int(row.shape[0])
        if node.op_type == "Split" and len(node.inputs) == 1:
            whole = _width(node.inputs[0])
            return None if whole is None else whole // len(node.outputs)
        if node.op_type == "Split":
            sizes = constant(node.inputs[1])
            return None if sizes is None else int(sizes[list(node.outputs).index(value)])
        if node.op_type not in {"RotaryEmbedding", "Reshape", "Squeeze", "Slice", "Add"}:
            return None
        value = node.inputs[0]
    return None


def _padding_and_bias(
    model: onnx_ir.Model, before: onnx_ir.Node, mask: onnx_ir.Value, max_tokens: int
) -> tuple[Any, Any] | None:
    """The padding mask (batch, tokens) int32 and a bias by distance or None, which together do what `mask` does."""
    if dependencies(model).get(mask) not in (_MASK, _MASK | LENGTHS):
        return None
    feeds = ones(model, 2, max_tokens)
    whole = evaluate(model, mask, feeds)
    padding = feeds["attention_mask"]
    padding[1, max_tokens // 2 :] = 0
    padded = evaluate(model, mask, feeds)
    if whole.ndim != 4 or whole.shape[0] not in (1, 2) or whole.shape[1] != 1 or padded.shape[0] != 2:
        return None
    table = table_of_distances(whole[0, 0], max_tokens)
    # What is masked is as low as float goes, or low enough; the real tokens have to see the same tokens as before.
    allowed = (whole[:1] > -1e4) & (padding[:, None, None, :] > 0)
    real = padding[:, None, :, None] > 0
    if table is None or ((padded > -1e4) != allowed)[np.broadcast_to(real, allowed.shape)].any():
        return None
    if ((table != 0) & (table > -1e4)).any():
        return None
    node_mask = shared_cast(model, graph_input(model, "attention_mask"), "INT32", before)
    if (table == 0).all():
        return node_mask, None
    return node_mask, look_up_distances(model, before, table[None, None], mask.name)
