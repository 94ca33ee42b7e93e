"""Rotations looked up in a table instead of computed in each step: of positions there are no more than the context has.

The exporter computes sine and cosine of the tokens at hand by a dozen nodes; their values for all positions are
constants. Apart from the fusion of attention, which takes either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.export.stepwise.subgraphs import constant, evaluate, graph_inputs, upstream

if TYPE_CHECKING:
    import onnx_ir

# Tables beyond this would be a weight that a file notices: 8,192 positions of heads of 128.
MOST_BYTES = 4_200_000
_ROTARY = {"RotaryEmbedding": (1, 2, 3), "GroupQueryAttention": (9, 7, 8)}  # where positions, cosines and sines come in


def tabulate_rotations(model: onnx_ir.Model, context_tokens: int) -> int:
    """Change an `onnx_ir.Model` in place: what rotates by the graph's positions reads constant tables.

    A rotation whose frequencies depend on how long the text is stays as it is.

    Args:
        model: with rotations as ONNX Runtime's contrib operators.
        context_tokens: positions run from 0 below it.

    Returns:
        how many nodes rotate by tables now.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    graph = model.graph
    positions = next((value for value in graph.inputs if value.name == "position_ids"), None)
    if positions is None:
        return 0
    tables: dict[tuple[int, int], tuple[Any, Any] | None] = {}
    done = 0
    for node in [node for node in graph if node.op_type in _ROTARY]:
        places = _ROTARY[node.op_type]
        if len(node.inputs) <= max(places) or any(node.inputs[place] is None for place in places):
            continue
        pair = (node.inputs[places[1]], node.inputs[places[2]])
        key = (id(pair[0]), id(pair[1]))
        if key not in tables:
            tables[key] = _tables(graph, pair, context_tokens)
        if (table := tables[key]) is not None:
            for place, value in zip(places, (positions, *table), strict=True):
                node.replace_input_with(place, value)
            done += 1
    RemoveUnusedNodesPass()(model)
    return done


def _tables(graph: onnx_ir.Graph, pair: tuple[Any, Any], context_tokens: int) -> tuple[Any, Any] | None:
    """Constants (context tokens, half the rotated width) float32 for cosines and sines; None where there are none."""
    cosines, sines = (_table(graph, value, context_tokens) for value in pair)
    if cosines is None or sines is None:
        return None
    names = (f"{pair[0].name}_table", f"{pair[1].name}_table")
    return constant(graph, names[0], cosines), constant(graph, names[1], sines)


def _table(graph: onnx_ir.Graph, value: onnx_ir.Value, context_tokens: int) -> NDArray[np.float32] | None:
    """The rows of all positions, if they are few enough and the same whatever other positions are at hand."""
    nodes = upstream(graph, value)
    if not nodes or not graph_inputs(nodes) <= {"position_ids", "input_ids", "attention_mask"}:
        return None
    alone = [_rows(nodes, value, np.array([[place]])) for place in (0, 1, context_tokens - 1)]
    if 2 * context_tokens * alone[0].nbytes > MOST_BYTES:
        return None
    whole = _rows(nodes, value, np.arange(context_tokens)[None])
    if any(not np.array_equal(row[0], whole[place]) for row, place in zip(alone, (0, 1, -1), strict=True)):
        return None
    return whole


def _rows(nodes: Sequence[onnx_ir.Node], value: onnx_ir.Value, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cosines or sines of positions (1, tokens), one row each; what pads them to the length of the cache is cut off."""
    ones = np.ones_like(positions)
    rows = evaluate(nodes, value, {"position_ids": positions, "input_ids": ones, "attention_mask": ones})
    return np.ascontiguousarray(rows[: positions.shape[1]], dtype=np.float32)
