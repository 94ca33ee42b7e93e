"""What lies between the joint query-key-value product and the attention: slices, biases, rotations, repeated tables.

Each is brought into the form that costs least: one Split behind one bias, rotations that read a table of cosines,
and a product with a constant that is not copied for each text first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.compress.fusion.evaluate import LENGTHS, dependencies, evaluate, ones
from edgetune.compress.fusion.surgery import (
    MICROSOFT,
    add_constant,
    constant,
    nodes_of,
    only_use,
    produced_by,
    put,
    swap,
)

if TYPE_CHECKING:
    import onnx_ir


def split_joint_product(model: onnx_ir.Model) -> None:
    """`reshape(squeeze(slice(reshape(x, [.., 3, heads, size]), i)), [0, 0, -1])` for i of 0, 1, 2 is a Split of x."""
    for view in nodes_of(model, "Reshape"):
        slices = [use.node for use in view.outputs[0].uses()]
        if len(slices) != 3 or any(node.op_type != "Slice" or _place(node) is None for node in slices):
            continue
        ends = {_place(node): _flattened(node) for node in slices}
        if set(ends) != {0, 1, 2} or None in ends.values() or produced_by(view.inputs[0], "MatMul", "Add") is None:
            continue
        attributes = {"axis": -1, "num_outputs": 3}
        parts = put(
            model, view, "Split", [view.inputs[0]], f"{view.outputs[0].name}.split", attributes=attributes, outputs=3
        )
        for place, end in ends.items():
            swap(end, parts[place])


def _place(node: onnx_ir.Node) -> int | None:
    """Which one of three a Slice takes along the third axis from the end."""
    start, end, axis = (constant(node.inputs[index]) for index in (1, 2, 3))
    if start is None or end is None or axis is None or axis.tolist() != [-3] or end[0] != start[0] + 1:
        return None
    return int(start[0])


def _flattened(node: onnx_ir.Node) -> Any:
    """The (batch, tokens, width) value that a slice becomes by Squeeze and Reshape; None where it is used otherwise."""
    squeeze = only_use(node.outputs[0])
    reshape = only_use(squeeze.outputs[0]) if squeeze is not None and squeeze.op_type == "Squeeze" else None
    if reshape is None or reshape.op_type != "Reshape":
        return None
    target = constant(reshape.inputs[1])
    return reshape.outputs[0] if target is not None and target.tolist() == [0, 0, -1] else None


def join_biases(model: onnx_ir.Model) -> None:
    """Biases that are added to each part of a Split are one bias before it."""
    for split in nodes_of(model, "Split"):
        adds = [only_use(value) for value in split.outputs]
        if produced_by(split.inputs[0], "MatMul") is None or any(add is None or add.op_type != "Add" for add in adds):
            continue
        rows: list[Any] = [
            constant(add.inputs[1 if add.inputs[0] is part else 0])
            for add, part in zip(adds, split.outputs, strict=True)
        ]
        if any(row is None or row.ndim != 1 for row in rows):
            continue
        name = split.inputs[0].name
        bias = add_constant(model, f"{name}.bias", np.concatenate(rows))
        split.replace_input_with(0, put(model, split, "Add", [split.inputs[0], bias], f"{name}.biased"))
        for add, part in zip(adds, split.outputs, strict=True):
            swap(add.outputs[0], part)
            model.graph.remove(add, safe=True)


def fold_rotations(model: onnx_ir.Model, max_tokens: int) -> None:
    """Let each RotaryEmbedding read tables of cosines and sines, when they follow from the places of the tokens."""
    marks = dependencies(model)
    tables: dict[tuple[str, ...], Any] = {}
    for node in nodes_of(model, "RotaryEmbedding"):
        sources = node.inputs[1:4]
        if node.domain != MICROSOFT or any(marks.get(value) != LENGTHS for value in sources):
            continue
        key = tuple(value.name for value in sources)
        if key not in tables:
            places, *waves = (evaluate(model, value, ones(model, 2, max_tokens)) for value in sources)
            looked_up = [wave[places] for wave in waves] if places.ndim == 2 else []  # (2, tokens, half)
            same = bool(looked_up) and all(np.array_equal(each[0], each[1]) for each in looked_up)
            tables[key] = (
                [
                    add_constant(model, f"{value.name}.table", wave[0])
                    for value, wave in zip(sources[1:], looked_up, strict=True)
                ]
                if same
                else None
            )
        if tables[key] is not None:
            node.replace_input_with(1, add_constant(model, "fused.axis_0", np.array([0], np.int64)))  # the first place
            node.replace_input_with(2, tables[key][0])
            node.replace_input_with(3, tables[key][1])


def join_reshapes(model: onnx_ir.Model) -> None:
    """`reshape(reshape(x, 4 sizes), [0, 0, -1])` is x, where x has three sizes: the output of a rotation."""
    for node in nodes_of(model, "Reshape"):
        inner = produced_by(node.inputs[0], "Reshape")
        target = constant(node.inputs[1])
        if inner is None or target is None or target.tolist() != [0, 0, -1]:
            continue
        if produced_by(inner.inputs[0], "RotaryEmbedding") is not None:
            swap(node.outputs[0], inner.inputs[0])


def broadcast_tables(model: onnx_ir.Model) -> None:
    """A product of heads with a constant that is tiled over the batch broadcasts it instead (DeBERTa's positions)."""
    for node in nodes_of(model, "FusedMatMul"):
        flat, tile = produced_by(node.inputs[0], "Reshape"), produced_by(node.inputs[1], "Tile")
        table = constant(tile.inputs[0]) if tile is not None else None
        turned = produced_by(flat.inputs[0], "Transpose") if flat is not None else None
        if table is None or table.ndim != 3 or turned is None or not _only_transposes_b(node):
            continue
        name = node.outputs[0].name
        # (heads, size, positions), against (batch, heads, tokens, size).
        columns = add_constant(model, f"{tile.inputs[0].name}.turned", table.transpose(0, 2, 1))
        product = put(model, node, "MatMul", [turned.outputs[0], columns], f"{name}.heads")
        shape = constant_tail(model, node, flat.inputs[1], table.shape[1])
        swap(node.outputs[0], put(model, node, "Reshape", [product, shape], f"{name}.flat"))
        model.graph.remove(node, safe=True)


def _only_transposes_b(node: onnx_ir.Node) -> bool:
    set_to = {key: attribute.value for key, attribute in node.attributes.items()}
    return set_to.pop("transB", 0) == 1 and set_to.pop("alpha", 1.0) == 1.0 and not any(set_to.values())


def constant_tail(model: onnx_ir.Model, before: onnx_ir.Node, shape: Any, last: int) -> Any:
    """The target [-1, tokens, size] with another last size."""
    joined = produced_by(shape, "Concat")
    size = add_constant(model, f"fused.size_{last}", np.array([last], np.int64))
    name = f"{shape.name}.{last}"
    for use in size.uses():
        if use.node.outputs[0].name == name:
            return use.node.outputs[0]
    return put(model, before, "Concat", [*joined.inputs[:2], size], name, attributes={"axis": 0})
