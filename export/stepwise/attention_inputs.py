"""What an attention node takes: queries and keys that it rotates itself, packed with the values.

A node for each of the two rotations and one for taking the product apart go away in every layer. The price is in the
first step: ONNX Runtime's CPU kernel rotates all rows of it by the positions of the first one, so that rows of unlike
length begin apart; of later steps it reads the positions of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetune.export.stepwise.grouped_attention import SWAPPED, constant_of, producer
from edgetune.export.stepwise.rewrite import fixed_size

if TYPE_CHECKING:
    import onnx_ir

# Where GroupQueryAttention (com.microsoft) takes its cosines, sines and positions, and where RotaryEmbedding does.
_TABLES = (7, 8, 9)
_ROTATED_BY = (2, 3, 1)
# ONNX Runtime's kernel takes heads whose width is a multiple of the first, and tables of the second, where it rotates.
_HEAD_WIDTH_STEP, _TABLE_WIDTH_STEP = 16, 8
_LONGER_THAN_HEADS = 1 << 16  # where a slice to the end of a head ends, at least


def rotate_inside(model: onnx_ir.Model) -> int:
    """Change an `onnx_ir.Model` in place: attention over rotated queries and keys takes them as they were before.

    Args:
        model: with GroupQueryAttention nodes, and rotations by constant tables (rotation_tables.py).

    Returns:
        how many attentions rotate by themselves now.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    done = sum(_take_in(model.graph, node) for node in _attentions(model))
    RemoveUnusedNodesPass()(model)
    return done


def pack_inputs(model: onnx_ir.Model) -> None:
    """Change an `onnx_ir.Model` in place: attention reads the one value that a Split takes its three inputs from."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    for node in _attentions(model):
        _pack(node)
    RemoveUnusedNodesPass()(model)


def _attentions(model: onnx_ir.Model) -> list[onnx_ir.Node]:
    return [node for node in model.graph if node.op_type == "GroupQueryAttention"]


@dataclass(frozen=True)
class _Rotated:
    """One input of an attention, and what it is rotated from.

    Attributes:
        node: the RotaryEmbedding.
        source: the value before it, (batch, tokens, heads * width) or, with `merged`, (batch, heads, tokens, width).
        rest: of each head, what is left as it is behind the rotated part.
        merged: the constant [0, 0, -1] by which heads that stand alone are put together.
    """

    node: Any
    source: Any
    rest: bool = False
    merged: Any = None

    @property
    def way(self) -> tuple[Any, ...]:
        """Positions, tables and order: the same for two inputs that are rotated alike."""
        interleaved = self.node.attributes.get("interleaved")
        return (*self.node.inputs[1:4], self.rest, 0 if interleaved is None else int(interleaved.value))

    @property
    def rotated_width(self) -> int:
        """Of each head; the tables say it."""
        return 2 * int(self.node.inputs[2].const_value.shape[1])


def _take_in(graph: onnx_ir.Graph, node: onnx_ir.Node) -> bool:
    """Let one attention rotate; whether its queries and keys are rotated alike, by tables, and by nothing else."""
    import onnx_ir

    query, key = (_rotated(value) for value in node.inputs[:2])
    if query is None or key is None or any(value is not None for value in node.inputs[7:10]) or query.way != key.way:
        return False
    width = fixed_size(node.inputs[3].shape[3])
    if width is None or width % _HEAD_WIDTH_STEP or query.rotated_width % (2 * _TABLE_WIDTH_STEP):
        return False
    if (query.rotated_width < width) != query.rest:
        return False
    new: list[Any] = []
    inputs = [*node.inputs, *[None] * (_TABLES[-1] + 1 - len(node.inputs))]
    inputs[:2] = (_merged(one, new) for one in (query, key))
    for place, source in zip(_TABLES, _ROTATED_BY, strict=True):
        inputs[place] = query.node.inputs[source]
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    attributes.update(do_rotary=1, rotary_interleaved=query.way[-1])
    rotating = onnx_ir.node(
        "GroupQueryAttention", inputs, domain="com.microsoft", outputs=_moved(node), attributes=attributes
    )
    graph.insert_before(node, [*new, rotating])
    graph.remove(node, safe=True)
    return True


def _rotated(value: onnx_ir.Value) -> _Rotated | None:
    """What a value is rotated from, by positions of the graph and constant tables; None where it is not."""
    node = producer(value, "RotaryEmbedding")
    if node is not None:
        # With heads as an axis of their own the node is told neither their number nor how much of them it rotates.
        return _Rotated(node, node.inputs[0]) if _suits(node) and node.attributes.get("num_heads") else None
    merge = producer(value, "Reshape")
    swap = producer(merge.inputs[0], "Transpose") if merge is not None else None
    sizes = constant_of(merge.inputs[1]) if merge is not None else None
    if swap is None or sizes is None or sizes.tolist() != [0, 0, -1] or not _swaps(swap):
        return None
    node = producer(swap.inputs[0], "RotaryEmbedding")
    if node is not None:
        return _Rotated(node, node.inputs[0], merged=merge.inputs[1]) if _suits(node) else None
    return _rotated_in_part(producer(swap.inputs[0], "Concat"), merge.inputs[1])


def _rotated_in_part(joined: Any, merged: Any) -> _Rotated | None:
    """The same where a Concat puts the rotated first part of each head and the rest together again."""
    if joined is None or len(joined.inputs) != 2 or joined.attributes["axis"].value not in (-1, 3):
        return None
    node, rest = producer(joined.inputs[0], "RotaryEmbedding"), _sliced(joined.inputs[1])
    first = _sliced(node.inputs[0]) if node is not None and _suits(node) else None
    if node is None or first is None or rest is None or first[0] is not rest[0]:
        return None
    rotated = _Rotated(node, first[0], rest=True, merged=merged)
    ends = (first[1], first[2], rest[1]), (0, rotated.rotated_width, rotated.rotated_width)
    return rotated if ends[0] == ends[1] and rest[2] > _LONGER_THAN_HEADS else None


def _sliced(value: onnx_ir.Value) -> tuple[Any, int, int] | None:
    """The value that a Slice takes a range of the last of four axes of, and the range; None where it is another."""
    node = producer(value, "Slice")
    numbers = [constant_of(one) for one in node.inputs[1:]] if node is not None else []
    if len(numbers) != 4 or any(one is None or one.size != 1 for one in numbers):
        return None
    start, end, axis, step = (int(one.reshape(())) for one in numbers)
    return (node.inputs[0], start, end) if axis in (-1, 3) and step == 1 else None


def _suits(node: onnx_ir.Node) -> bool:
    """Whether it is ONNX Runtime's own, rotates all that it is given, by the graph's positions and constant tables."""
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return (
        node.domain == "com.microsoft"
        and len(node.inputs) == 4
        and node.inputs[1].is_graph_input()
        and all(table.const_value is not None for table in node.inputs[2:])
        and not attributes.get("rotary_embedding_dim", 0)
    )


def _swaps(node: onnx_ir.Node) -> bool:
    return list(node.attributes["perm"].value) == SWAPPED


def _merged(one: _Rotated, new: list[onnx_ir.Node]) -> onnx_ir.Value:
    """The source as (batch, tokens, heads * width); a normalization of single heads stays, without the swaps around."""
    import onnx_ir

    if one.merged is None:
        return one.source
    norm = producer(one.source, "SimplifiedLayerNormalization")
    swap = producer(norm.inputs[0] if norm is not None else one.source, "Transpose")
    if swap is None or not _swaps(swap):
        new.append(onnx_ir.node("Transpose", [one.source], attributes={"perm": SWAPPED}))
        heads = new[-1].outputs[0]
    elif norm is not None:
        attributes = {name: attribute.value for name, attribute in norm.attributes.items()}
        new.append(onnx_ir.node(norm.op_type, [swap.inputs[0], *norm.inputs[1:]], attributes=attributes))
        heads = new[-1].outputs[0]
    else:
        heads = swap.inputs[0]
    new.append(onnx_ir.node("Reshape", [heads, one.merged]))
    return new[-1].outputs[0]


def _pack(node: onnx_ir.Node) -> None:
    """Let an attention read what a Split takes apart into its queries, keys and values, in this order and no others."""
    query = node.inputs[0]
    split = query.producer() if query is not None else None
    if split is None or split.op_type != "Split" or list(split.outputs) != list(node.inputs[:3]):
        return
    for place, value in enumerate((split.inputs[0], None, None)):
        node.replace_input_with(place, value)


def _moved(node: onnx_ir.Node) -> list[Any]:
    """New values for a node's outputs, which take their names, their readers and their places among the graph's."""
    import onnx_ir

    graph, moved = node.graph, []
    for old in node.outputs:
        name, old.name = old.name, f"{old.name}_rotated_outside"
        new = onnx_ir.Value(name=name, type=old.type, shape=old.shape)
        for use in list(old.uses()):
            use.node.replace_input_with(use.idx, new)
        if old.is_graph_output():
            graph.outputs[list(graph.outputs).index(old)] = new
        moved.append(new)
    return moved
