"""A graph that reads the length of its cache from the attention mask, so that the cache may be preallocated.

GroupQueryAttention writes new keys and values into its past where the present is the same memory; what stands in the
way is that the exporter counts the past's columns. Apart from the fusion, which is right without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.export.stepwise.subgraphs import constant, evaluate, graph_inputs, upstream

if TYPE_CHECKING:
    import onnx_ir

LOWEST = np.finfo(np.float32).min
_BOOL = 9
# Rows, tokens and tokens before them on which a bias is compared with the plain one; the last for windows.
_SHAPES = ((2, 1, 0), (2, 5, 0), (3, 1, 7), (1, 4, 9), (1, 1, 131_071))


def read_lengths_from_mask(model: onnx_ir.Model) -> bool:
    """Change an `onnx_ir.Model` in place where all that its past is read for is attention and its length.

    A graph for a batch of one, which needs no mask, gets one as an input for its length alone.

    Returns:
        whether the past may now be longer than what it holds.
    """
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    past = [value for value in graph.inputs if "past_key_values" in value.name]
    if ids is None or not past or not all(map(_only_attended, past)):
        return False
    if any(value.producer().op_type != "GroupQueryAttention" for value in graph.outputs if value.name != "logits"):
        return False
    alone = mask is None
    mask = _new_mask(graph, ids) if mask is None else mask
    for node in [use.node for value in past for use in value.uses() if use.node.op_type == "Shape"]:
        _count_elsewhere(graph, node, mask, ids)
    for bias in {id(one): one for one in _biases(graph)}.values():
        if _is_plain(graph, bias, most_rows=1 if alone else 3):
            spread = None if alone else _padding_bias(graph, bias, mask, ids)
            for use in [use for use in bias.uses() if spread or use.node.op_type == "GroupQueryAttention"]:
                use.node.replace_input_with(use.idx, spread)
    _tidy(model)
    return True


def _new_mask(graph: onnx_ir.Graph, ids: onnx_ir.Value) -> Any:
    import onnx_ir

    mask = onnx_ir.Value(name="attention_mask", type=ids.type, shape=onnx_ir.Shape([1, "total_tokens"]))
    graph.inputs.insert(1, mask)
    return mask


def _only_attended(value: onnx_ir.Value) -> bool:
    return all(
        use.node.op_type == "GroupQueryAttention" or _counts(use.node, 0) or _counts(use.node, 2)
        for use in value.uses()
    )


def _counts(node: onnx_ir.Node, axis: int) -> bool:
    """Whether a node reads the size of one axis."""
    if node.op_type != "Shape" or "start" not in node.attributes or "end" not in node.attributes:
        return False
    return bool((node.attributes["start"].value, node.attributes["end"].value) == (axis, axis + 1))


def _count_elsewhere(graph: onnx_ir.Graph, node: onnx_ir.Node, mask: onnx_ir.Value, ids: onnx_ir.Value) -> None:
    """Let what reads the past's rows read those of the ids, and what reads its columns the mask's without the ids'."""
    import onnx_ir

    rows = _counts(node, 0)
    axes = {"start": 0, "end": 1} if rows else {"start": 1, "end": 2}
    new = [onnx_ir.node("Shape", [ids], attributes=axes)]
    if not rows:
        total = onnx_ir.node("Shape", [mask], attributes=axes)
        new += [total, onnx_ir.node("Sub", [total.outputs[0], new[0].outputs[0]])]
    graph.insert_before(node, new)
    for use in list(node.outputs[0].uses()):
        use.node.replace_input_with(use.idx, new[-1].outputs[0])


def _biases(graph: onnx_ir.Graph) -> list[onnx_ir.Value]:
    nodes = [node for node in graph if node.op_type == "GroupQueryAttention" and len(node.inputs) > 10]
    return [node.inputs[10] for node in nodes if node.inputs[10] is not None]


def _is_plain(graph: onnx_ir.Graph, bias: onnx_ir.Value, *, most_rows: int) -> bool:
    """Whether a bias masks padding and what comes later, and nothing else: then the kernel masks the latter itself."""
    nodes = upstream(graph, bias)
    if not graph_inputs(nodes) <= {"attention_mask", "input_ids", "position_ids"}:
        return False
    return all(
        np.array_equal(evaluate(nodes, bias, feed), plain_bias(feed["attention_mask"], tokens))
        for tokens, feed in (_feed(shape) for shape in _SHAPES if shape[0] <= most_rows)
    )


def _feed(shape: tuple[int, int, int]) -> tuple[int, dict[str, NDArray[np.int64]]]:
    rows, tokens, before = shape
    mask = np.ones((rows, before + tokens), np.int64)
    for row in range(1, rows):
        mask[row, : min(row, before + tokens - 1)] = 0
    positions = np.maximum(mask.cumsum(1) - 1, 0)[:, before:]
    return tokens, {
        "attention_mask": mask,
        "input_ids": np.zeros((rows, tokens), np.int64),
        "position_ids": positions,
    }


def plain_bias(mask: NDArray[np.int64], tokens: int) -> NDArray[np.float32]:
    """What is added to scaled products: 0 where a token may look, else the lowest float32.

    Args:
        mask: (rows, total tokens) int64, 0 where padding stands.
        tokens: the last ones, which look.

    Returns:
        (rows, 1, tokens, total tokens) float32.
    """
    total = mask.shape[1]
    seen = np.arange(total)[None, :] <= np.arange(total - tokens, total)[:, None]
    return np.where(seen[None, None] & (mask[:, None, None] != 0), np.float32(0), LOWEST)


def _padding_bias(graph: onnx_ir.Graph, bias: onnx_ir.Value, mask: onnx_ir.Value, ids: onnx_ir.Value) -> onnx_ir.Value:
    """A bias of a few nodes instead of another: (batch, 1, tokens, total tokens), the lowest float32 at padding."""
    import onnx_ir

    name = bias.name
    axes = constant(graph, f"{name}_axes", np.array([1, 2], np.int64))
    one = constant(graph, f"{name}_single", np.array([1], np.int64))
    none, lowest = (
        constant(graph, f"{name}_none", np.zeros((), np.float32)),
        constant(graph, f"{name}_lowest", np.asarray(LOWEST, np.float32)),
    )
    real = onnx_ir.node("Cast", [mask], attributes={"to": _BOOL})
    rows = onnx_ir.node("Where", [real.outputs[0], none, lowest])
    four = onnx_ir.node("Unsqueeze", [rows.outputs[0], axes])
    tokens = onnx_ir.node("Shape", [ids], attributes={"start": 1, "end": 2})
    sizes = onnx_ir.node("Concat", [one, one, tokens.outputs[0], one], attributes={"axis": 0})
    spread = onnx_ir.node("Expand", [four.outputs[0], sizes.outputs[0]])
    graph.insert_before(bias.producer(), [real, rows, four, tokens, sizes, spread])
    return spread.outputs[0]


def _tidy(model: onnx_ir.Model) -> None:
    from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass

    RemoveUnusedNodesPass()(model)
    TopologicalSortPass()(model)
