"""Positions: whatever depends on constants alone becomes a constant, and what depends on distances a table of them.

MPNet and DeBERTa compute from the number of tokens, at each run and in twenty nodes, which relative position belongs
to each pair of tokens; ModernBERT which pairs are within its window. All are functions of the distance between the
two: a table of 2 * tokens - 1 entries and one look-up give the same. DeBERTa also projects its table of relative
positions anew for each text: 512 rows where the text itself has 14.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.fusion.evaluate import LENGTHS, ancestors, dependencies, evaluate, ones
from edgetune.compress.fusion.surgery import add_constant, graph_input, put, swap

if TYPE_CHECKING:
    import onnx_ir

# Below this the look-up costs as much as what it replaces.
_FEWEST_NODES = 6


def fold_constants(model: onnx_ir.Model) -> None:
    """Compute what depends on constants alone, now."""
    marks = dependencies(model)
    for node in list(model.graph):
        for value in node.outputs:
            if marks[value] or not any(_reads_more(use.node, marks) for use in value.uses()):
                continue
            array = evaluate(model, value, {})
            swap(value, add_constant(model, f"{value.name}.folded", array))


def _reads_more(node: onnx_ir.Node, marks: dict[onnx_ir.Value, frozenset[str]]) -> bool:
    return bool(marks[node.outputs[0]])


def fold_distances(model: onnx_ir.Model, max_tokens: int) -> None:
    """Replace what is computed from the distance of two tokens alone by a look-up in a table."""
    marks = dependencies(model)
    edge = []
    for node in model.graph:
        for value in node.outputs:
            if marks[value] == LENGTHS and any(marks[use.node.outputs[0]] != LENGTHS for use in value.uses()):
                # Repeated over the batch it would no longer be a function of the distance alone.
                edge.append(node.inputs[0] if node.op_type == "Expand" else value)
    for value in dict.fromkeys(edge):
        if marks.get(value) != LENGTHS or len(ancestors(value)) < _FEWEST_NODES:
            continue
        table = _table_of_distances(model, value, max_tokens)
        if table is not None:
            swap(value, look_up_distances(model, value.producer(), table, value.name))


def _table_of_distances(model: onnx_ir.Model, value: onnx_ir.Value, tokens: int) -> NDArray[Any] | None:
    """(..., 2 * tokens - 1) by column minus row, where `value` (..., tokens, tokens) depends on nothing else."""
    whole = evaluate(model, value, ones(model, 2, tokens))
    table = table_of_distances(whole, tokens)
    if table is None:
        return None
    few = max(2, tokens // 3)
    smaller = evaluate(model, value, ones(model, 3, few))
    same = table[..., tokens - few : tokens + few - 1]
    agrees = table_of_distances(smaller, few)
    return table if agrees is not None and np.array_equal(agrees, same) else None


def table_of_distances(square: NDArray[Any], tokens: int) -> NDArray[Any] | None:
    """The entries by distance of a (..., tokens, tokens) array; None where it is not the same along its diagonals."""
    if square.ndim < 2 or square.shape[-2:] != (tokens, tokens):
        return None
    table = np.concatenate([square[..., :0:-1, 0], square[..., 0, :]], axis=-1)
    places = np.arange(tokens)[None, :] - np.arange(tokens)[:, None] + tokens - 1
    return table if np.array_equal(table[..., places], square) else None


def look_up_distances(model: onnx_ir.Model, before: onnx_ir.Node, table: NDArray[Any], name: str) -> Any:
    """A value (..., tokens, tokens) of a table (..., 2 * longest - 1) by column minus row."""
    lead = table.shape[:-1]
    flat = table.reshape(-1, table.shape[-1]) if table.size > table.shape[-1] else table.reshape(-1)
    rows = add_constant(model, f"{name}.by_distance", flat)
    places = _distances(model, before, (table.shape[-1] + 1) // 2)
    axis = flat.ndim - 1
    distances = put(model, before, "Gather", [rows, places], f"{name}.looked_up", attributes={"axis": axis})
    missing = len(lead) - axis  # (tokens, tokens), or (heads, tokens, tokens)
    if missing:
        axes = add_constant(model, f"fused.axes_{missing}", np.arange(missing, dtype=np.int64))
        distances = put(model, before, "Unsqueeze", [distances, axes], f"{name}.raised")
    return distances


def _distances(model: onnx_ir.Model, before: onnx_ir.Node, longest: int) -> Any:
    """Column minus row plus `longest` - 1, (tokens, tokens) int64; one for the whole graph."""
    name = f"fused.distance_{longest}"
    for node in model.graph:
        if node.outputs[0].name == name:
            return node.outputs[0]
    first = model.graph[0]
    zero, one = (add_constant(model, f"fused.{n}", np.array(n, np.int64)) for n in (0, 1))
    axis_0, axis_1 = (add_constant(model, f"fused.axis_{n}", np.array([n], np.int64)) for n in (0, 1))
    ids = graph_input(model, "input_ids")
    length = put(model, first, "Shape", [ids], f"{name}.shape", attributes={"start": 1, "end": 2})
    length = put(model, first, "Squeeze", [length, axis_0], f"{name}.tokens")
    order = put(model, first, "Range", [zero, length, one], f"{name}.order")
    column = put(model, first, "Unsqueeze", [order, axis_0], f"{name}.column")
    row = put(model, first, "Unsqueeze", [order, axis_1], f"{name}.row")
    middle = add_constant(model, f"{name}.middle", np.array(longest - 1, np.int64))
    shifted = put(model, first, "Add", [column, middle], f"{name}.shifted")
    return put(model, first, "Sub", [shifted, row], name)
