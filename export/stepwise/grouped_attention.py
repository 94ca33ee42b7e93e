"""Attention over a cache becomes one GroupQueryAttention node, for batches too: a third of a small model's step.

transformers' exporter fuses it only where the batch is one, since ONNX Runtime's CPU kernel rotates every row of a
first step by the first row's positions. Here the rotation stays outside (attention_inputs.py takes it in where the
runtime can know of it), and padding is masked by the bias that the graph computes anyway. Works on `onnx_ir` models as
the exporter leaves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir

SWAPPED = [0, 2, 1, 3]  # (batch, tokens, heads, width) and (batch, heads, tokens, width) into one another
HEAD_WIDTH_STEP = 8  # ONNX Runtime's kernel takes heads whose width is a multiple of it
_INT32 = 6


@dataclass(frozen=True)
class _Attention:
    """What one attention is made of, in the values and nodes of the graph.

    Attributes:
        softmax: its middle.
        query: (batch, tokens, heads * width).
        bias: (batch, 1, tokens, total tokens), added to the scaled products.
        keys, values: the nodes that put the new ones, (batch, kv_heads, tokens, width), behind the past.
        output: (batch, tokens, heads * width).
        merged: the constant [0, 0, -1].
    """

    softmax: Any
    query: Any
    bias: Any
    keys: Any
    values: Any
    output: Any
    merged: Any
    heads: int
    scale: float


def group_attentions(model: onnx_ir.Model) -> int:
    """Replace what can be replaced of an `onnx_ir.Model`'s attentions in place; shapes must still be known.

    Returns:
        how many there are now, the exporter's own among them; each takes its cache as GroupQueryAttention does
        (com.microsoft, ONNX Runtime's contrib operators), shorter rows padded on the left.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass

    attentions = [one for one in map(_attention, _softmaxes(model)) if one is not None and _suits(one)]
    lengths: dict[int, tuple[Any, Any]] = {}
    for one in attentions:
        _replace(model, one, lengths)
    for node in list(model.graph):
        if node.op_type == "GroupQueryAttention":
            _read_merged(node.outputs[0])
        elif node.op_type == "Reshape":
            _undo_split(node)
    RemoveUnusedNodesPass()(model)
    TopologicalSortPass()(model)
    return sum(node.op_type == "GroupQueryAttention" for node in model.graph)


def _softmaxes(model: onnx_ir.Model) -> list[onnx_ir.Node]:
    return [node for node in model.graph if node.op_type == "Softmax"]


def _attention(softmax: onnx_ir.Node) -> _Attention | None:
    """The attention around a softmax, as the exporter takes it apart again for the CPU; None where it is another."""
    add = producer(softmax.inputs[0], "Add")
    scaled = producer(add.inputs[0], "Mul") if add else None
    scale = constant_of(scaled.inputs[1]) if scaled else None
    products = producer(scaled.inputs[0], "MatMul") if scaled else None
    weighed = _only_user(softmax, "MatMul")
    swapped = _only_user(weighed, "Transpose")
    output = _only_user(swapped, "Reshape")
    if add is None or products is None or output is None or scale is None or scale.size != 1:
        return None
    split = producer(_input_of(producer(products.inputs[0], "Transpose")), "Reshape")
    keys, values = _appended(products.inputs[1]), _appended(weighed.inputs[1])
    sizes = constant_of(split.inputs[1]) if split else None
    if split is None or keys is None or values is None or sizes is None or sizes.size != 4:
        return None
    return _Attention(
        softmax,
        split.inputs[0],
        _unexpanded(add.inputs[1]),
        keys,
        values,
        output.outputs[0],
        output.inputs[1],
        int(sizes[2]),
        float(scale.reshape(())),
    )


def _suits(one: _Attention) -> bool:
    """Whether ONNX Runtime's kernel takes it."""
    past = [node.inputs[0].shape for node in (one.keys, one.values)]
    if any(shape is None or len(shape) != 4 for shape in past):
        return False
    (heads, width), others = (_sizes(shape) for shape in past)
    merged = constant_of(one.merged)
    return (
        heads is not None
        and width is not None
        and (heads, width) == others
        and one.heads % heads == 0
        and width % HEAD_WIDTH_STEP == 0
        and merged is not None
        and merged.tolist() == [0, 0, -1]
        and (one.bias.shape is None or len(one.bias.shape) == 4)
    )


def _sizes(shape: onnx_ir.Shape) -> tuple[int | None, int | None]:
    from edgetune.export.stepwise.rewrite import fixed_size

    return fixed_size(shape[1]), fixed_size(shape[3])


def _replace(model: onnx_ir.Model, one: _Attention, lengths: dict[int, tuple[Any, Any]]) -> None:
    import onnx_ir

    new: list[Any] = []
    query = _merged(one.query, one.merged, new)
    keys, values = (_merged(node.inputs[1], one.merged, new, swapped=True) for node in (one.keys, one.values))
    before, total = lengths.get(id(one.bias)) or lengths.setdefault(id(one.bias), _lengths(model, one.bias, new))
    past_keys, past_values = one.keys.inputs[0], one.values.inputs[0]
    attributes = {
        "num_heads": one.heads,
        "kv_num_heads": _sizes(past_keys.shape)[0],
        "scale": one.scale,
        "do_rotary": 0,
    }
    inputs = [query, keys, values, past_keys, past_values, before, total, None, None, None, one.bias]
    grouped = onnx_ir.node("GroupQueryAttention", inputs, domain="com.microsoft", num_outputs=3, attributes=attributes)
    model.graph.insert_before(one.softmax, [*new, grouped])
    model.opset_imports.setdefault("com.microsoft", 1)
    for node, present in ((one.keys, grouped.outputs[1]), (one.values, grouped.outputs[2])):
        _hand_over(model.graph, node.outputs[0], present)
    attended = grouped.outputs[0]
    attended.shape, attended.type = one.output.shape, one.output.type
    for use in list(one.output.uses()):
        use.node.replace_input_with(use.idx, attended)


def _lengths(model: onnx_ir.Model, bias: onnx_ir.Value, new: list[onnx_ir.Node]) -> tuple[Any, Any]:
    """The kernel's two lengths, int32: of each row without its last token, (batch,), and with it, (1,)."""
    import onnx_ir

    one = onnx_ir.Value(
        name=f"{bias.name}_one", const_value=onnx_ir.tensor(np.array([1], np.int32), name=f"{bias.name}_one")
    )
    model.graph.register_initializer(one)
    size = onnx_ir.node("Shape", [bias], attributes={"start": 3, "end": 4})
    total = onnx_ir.node("Cast", size.outputs, attributes={"to": _INT32})
    before = onnx_ir.node("Sub", [total.outputs[0], one])
    rows = onnx_ir.node("Shape", [bias], attributes={"start": 0, "end": 1})
    spread = onnx_ir.node("Expand", [before.outputs[0], rows.outputs[0]])
    new += [size, total, before, rows, spread]
    return spread.outputs[0], total.outputs[0]


def _merged(
    value: onnx_ir.Value, sizes: onnx_ir.Value, new: list[onnx_ir.Node], *, swapped: bool = False
) -> onnx_ir.Value:
    """A value as (batch, tokens, heads * width); `swapped` where it is (batch, heads, tokens, width)."""
    import onnx_ir

    if swapped:
        node = producer(value, "Transpose")
        if node is not None and list(node.attributes["perm"].value) == SWAPPED:
            value = node.inputs[0]
        else:
            new.append(onnx_ir.node("Transpose", [value], attributes={"perm": SWAPPED}))
            value = new[-1].outputs[0]
    while (node := producer(value, "Reshape")) is not None and _rank(node.inputs[0]) in (3, 4):
        value = node.inputs[0]  # taken apart into heads and put together again
        if _rank(value) == 3:
            return value
    if _rank(value) == 3:
        return value
    new.append(onnx_ir.node("Reshape", [value, sizes]))
    return new[-1].outputs[0]


def _undo_split(node: onnx_ir.Node) -> None:
    """Let what reads heads merged again, [0, 0, -1], read the value of three axes that was split into them."""
    sizes, split = constant_of(node.inputs[1]), producer(node.inputs[0], "Reshape")
    if sizes is None or sizes.tolist() != [0, 0, -1] or split is None or _rank(split.inputs[0]) != 3:
        return
    if _rank(split.outputs[0]) == 4 and not node.outputs[0].is_graph_output():
        for use in list(node.outputs[0].uses()):
            use.node.replace_input_with(use.idx, split.inputs[0])


def _read_merged(value: onnx_ir.Value) -> None:
    """Let what reads a value of three axes split into heads by one Reshape and merged by the next read the value."""
    for split in _users(value, "Reshape"):
        if (sizes := constant_of(split.inputs[1])) is not None and sizes.size == 4 and sizes[:2].tolist() == [0, 0]:
            for merged in [node for node in _users(split.outputs[0], "Reshape") if _rank(node.outputs[0]) == 3]:
                for use in list(merged.outputs[0].uses()):
                    use.node.replace_input_with(use.idx, value)


def _appended(value: onnx_ir.Value) -> onnx_ir.Node:
    """The node that puts new keys or values behind the past ones, upwards of what repeats and turns them."""
    node = value.producer()
    while node is not None and node.op_type in ("Reshape", "Transpose", "Unsqueeze", "Expand"):
        node = node.inputs[0].producer()
    appends = node is not None and node.op_type == "Concat" and len(node.inputs) == 2
    return node if appends and node.attributes["axis"].value in (-2, 2) and node.inputs[0].is_graph_input() else None


def _unexpanded(bias: onnx_ir.Value) -> onnx_ir.Value:
    """The bias before it was spread over heads, which the kernel does itself."""
    node = producer(bias, "Expand")
    return node.inputs[0] if node is not None and _rank(node.inputs[0]) == 4 else bias


def _hand_over(graph: onnx_ir.Graph, old: onnx_ir.Value, new: onnx_ir.Value) -> None:
    """Let everything that reads a value, the graph's output among it, read another one under its name."""
    new.shape, new.type = old.shape, old.type
    for use in list(old.uses()):
        use.node.replace_input_with(use.idx, new)
    if old.is_graph_output():
        place = list(graph.outputs).index(old)
        name, old.name = old.name, f"{old.name}_before"
        new.name = name
        graph.outputs[place] = new


def producer(value: onnx_ir.Value, op_type: str) -> Any:
    """The node that gives a value, where it is of that type; else None."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None


def _input_of(node: onnx_ir.Node) -> onnx_ir.Value:
    return node.inputs[0] if node is not None else None


def _users(value: onnx_ir.Value, op_type: str) -> Sequence[Any]:
    return [use.node for use in value.uses() if use.node.op_type == op_type and use.idx == 0]


def _only_user(node: onnx_ir.Node, op_type: str) -> onnx_ir.Node:
    users = [use.node for use in node.outputs[0].uses()] if node is not None else []
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None


def _rank(value: onnx_ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def constant_of(value: onnx_ir.Value) -> Any:
    """The array of a constant value; None where it is none."""
    return value.const_value.numpy() if value is not None and value.const_value is not None else None
