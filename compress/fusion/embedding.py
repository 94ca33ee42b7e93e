"""Embeddings: what is looked up by an index that never varies, or by the plain order of the tokens, is no look-up.

Token types that the tokenizer always gives as 0 (and RoBERTa's table of one row) become a constant row, which is
added to the position table once and for all; BERT's positions become a slice of that table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.compress.fusion.surgery import add_constant, constant, nodes_of, only_use, produced_by, put, scalar, swap

if TYPE_CHECKING:
    import onnx_ir

# They move, repeat or pick elements: where all of them are equal, so are the results.
_PICKING = (
    "Slice",
    "Expand",
    "GatherElements",
    "Gather",
    "Reshape",
    "Unsqueeze",
    "Squeeze",
    "Cast",
    "Identity",
    "Tile",
)


def fold_embeddings(model: onnx_ir.Model, max_tokens: int, constant_inputs: dict[str, int]) -> None:
    """Fold constant and ordered look-ups of `model` in place.

    Args:
        model: an `onnx_ir.Model`.
        max_tokens: the longest input; positions behind it are dropped.
        constant_inputs: graph inputs whose elements are all known, such as {"token_type_ids": 0}.
    """
    for node in nodes_of(model, "Gather"):
        table = constant(node.inputs[0])
        if table is None or table.ndim != 2 or _axis(node) != 0:
            continue
        if table.shape[0] == 1 and _rank(node.inputs[1]) != 0:
            place: int | None = 0  # any other index would be an error
        else:
            place = _uniform(node.inputs[1], constant_inputs)
        if place is not None:
            swap(node.outputs[0], add_constant(model, f"{node.outputs[0].name}.row", table[place]))
            model.graph.remove(node, safe=True)
            continue
        length = _ordered(node.inputs[1])
        if length is not None:
            _slice_table(model, node, table[:max_tokens], length)
    for node in nodes_of(model, "Add"):
        _add_row_to_table(model, node)


def _axis(node: onnx_ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 0


def _rank(value: onnx_ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _uniform(value: onnx_ir.Value, constant_inputs: dict[str, int]) -> int | None:
    """The number that all elements of an index have, or None where they may differ."""
    for _ in range(16):
        array = constant(value)
        if array is not None:
            return int(array.flat[0]) if array.size and array.ndim and (array == array.flat[0]).all() else None
        if value.is_graph_input():
            return constant_inputs.get(value.name)
        node = produced_by(value, *_PICKING)
        if node is None:
            return None
        value = node.inputs[0]
    return None


def _ordered(value: onnx_ir.Value) -> onnx_ir.Value | None:
    """For an index 0, 1, 2 ... of as many elements as there are tokens: that number, (1,) int64; else None."""
    node = produced_by(value, "Slice")
    if node is None:
        return None
    order = constant(node.inputs[0])
    if order is None or order.ndim != 2 or order.shape[0] != 1 or (order[0] != np.arange(order.shape[1])).any():
        return None
    plain = scalar(node.inputs[1]) == 0 and scalar(node.inputs[3]) == 1 and scalar(node.inputs[4]) == 1
    return node.inputs[2] if plain and constant(node.inputs[2]) is None else None


def _slice_table(model: onnx_ir.Model, node: onnx_ir.Node, table: Any, length: onnx_ir.Value) -> None:
    name = node.outputs[0].name
    zero = add_constant(model, "fused.axis_0", np.array([0], np.int64))
    rows = add_constant(model, f"{name}.table", table)
    swap(node.outputs[0], put(model, node, "Slice", [rows, zero, length, zero], f"{name}.slice"))  # (tokens, width)
    model.graph.remove(node, safe=True)


def _add_row_to_table(model: onnx_ir.Model, node: onnx_ir.Node) -> None:
    """`table[index] + row`, with other summands between or not, becomes `(table + row)[index]`."""
    row = next((value for value in node.inputs if _is_row(value)), None)
    if row is None:
        return
    rest = node.inputs[1] if node.inputs[0] is row else node.inputs[0]
    width = constant(row).shape[0]  # type: ignore[union-attr]
    lookup = _small_lookup(rest, width) or _small_lookup_beside(node, width)
    if lookup is None:
        return
    table = lookup.inputs[0]
    rows: Any = constant(table)
    shifted = add_constant(model, f"{table.name}.{row.name}", rows + constant(row))
    lookup.replace_input_with(0, shifted)
    swap(node.outputs[0], rest)
    model.graph.remove(node, safe=True)


def _is_row(value: onnx_ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.ndim == 1 and value.name.endswith(".row")


def _small_lookup(value: onnx_ir.Value, width: int) -> onnx_ir.Node | None:
    """The Slice or Gather that takes rows of `width` out of a constant table for `value` alone, words excepted."""
    node = produced_by(value, "Slice", "Gather")
    if node is None or only_use(value) is None:
        return None
    table = constant(node.inputs[0])
    if table is None or table.ndim != 2 or table.shape[1] != width:
        return None
    return None if node.inputs[1].name == "input_ids" else node


def _small_lookup_beside(node: onnx_ir.Node, width: int) -> onnx_ir.Node:
    """The other summand's look-up where the sum goes straight into another sum, or a skip layer norm."""
    after = only_use(node.outputs[0])
    if after is None or after.op_type not in {"Add", "SkipLayerNormalization"}:
        return None
    other = after.inputs[1] if after.inputs[0] is node.outputs[0] else after.inputs[0]
    return _small_lookup(other, width)
