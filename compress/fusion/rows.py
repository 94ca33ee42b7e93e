"""Rows that no output needs: where only one position is pooled, the last layer computes only that position.

The attention of the last layer still reads keys and values of all positions; behind it, the output projection, the
feed-forward network and both layer norms run on one row a text. With mean pooling nothing can be dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.compress.fusion.surgery import constant, nodes_of, put, scalar, swap

if TYPE_CHECKING:
    import onnx_ir

# Each row of their output depends on the same row of their inputs alone.
_BY_ROW = {
    "Add", "Mul", "MatMul", "LayerNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization",
    "BiasGelu", "FastGelu", "Gelu", "Relu", "Tanh", "Split",
}  # fmt: skip


def drop_rows(model: onnx_ir.Model) -> None:
    """Move each `states[:, position]` up through the operators that treat rows by themselves."""
    for pick in nodes_of(model, "Gather"):
        if _axis(pick) == 1 and scalar(pick.inputs[1]) is not None and constant(pick.inputs[0]) is None:
            _raise_pick(model, pick)


def _axis(node: onnx_ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 0


def _raise_pick(model: onnx_ir.Model, pick: onnx_ir.Node) -> None:
    island = _island(pick)
    if not island:
        return
    picked: dict[Any, Any] = {}
    for node in [node for node in model.graph if node in island]:
        if node.op_type == "Split":
            node.attributes["axis"] = _last_axis()
        for place, value in enumerate(list(node.inputs)):
            if value is None or constant(value) is not None or value.producer() in island:
                continue
            if value not in picked:
                name = f"{value.name}.{pick.outputs[0].name}"
                # From here on (batch, width).
                picked[value] = put(model, node, "Gather", [value, pick.inputs[1]], name, attributes={"axis": 1})
            node.replace_input_with(place, picked[value])
    swap(pick.outputs[0], pick.inputs[0])
    model.graph.remove(pick, safe=True)


def _last_axis() -> Any:
    import onnx_ir

    return onnx_ir.AttrInt64("axis", -1)


def _island(pick: onnx_ir.Node) -> set[Any]:
    """The nodes above `pick` that work by row and serve nothing else."""
    island: set[Any] = set()
    pending = [pick.inputs[0]]
    while pending:
        value = pending.pop()
        node = value.producer()
        if node is None or node in island or node.op_type not in _BY_ROW or not _keeps_rows(node):
            continue
        readers = {use.node for output in node.outputs for use in output.uses()}
        # A value with two readers comes by twice; the second time both are known.
        if readers <= island | {pick} and not any(output.is_graph_output() for output in node.outputs):
            island.add(node)
            pending.extend(each for each in node.inputs if each is not None and constant(each) is None)
    return island


def _keeps_rows(node: onnx_ir.Node) -> bool:
    """A product has to be with a constant matrix; a constant summand or factor has to be the same for all rows."""
    arrays = [constant(value) for value in node.inputs if value is not None]
    if node.op_type == "MatMul":
        return arrays[0] is None and arrays[1] is not None and arrays[1].ndim == 2
    if node.op_type == "Split":
        return _axis(node) in (2, -1)
    return all(array is None or array.ndim < 2 for array in arrays)
