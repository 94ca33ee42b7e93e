"""Small moves on an `onnx_ir` graph that every fusion is made of: read a constant, add one, put a node, swap a value.

Kept in one place, so that the fusions read as patterns. onnx_ir is imported inside: the recipe must not load it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir

MICROSOFT = "com.microsoft"


def constant(value: onnx_ir.Value) -> NDArray[Any] | None:
    """The array of an initializer; None for what is computed, or absent."""
    if value is None or value.const_value is None:
        return None
    array: NDArray[Any] = value.const_value.numpy()
    return array


def scalar(value: onnx_ir.Value) -> float | None:
    """The one number of an initializer with a single element; None for anything else."""
    array = constant(value)
    return None if array is None or array.size != 1 else float(array.reshape(-1)[0])


def produced_by(value: onnx_ir.Value | None, *operators: str) -> Any:
    """The node that computes `value`, when it is one of these operators; else None."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in operators else None


def nodes_of(model: onnx_ir.Model, *operators: str) -> Iterator[onnx_ir.Node]:
    """The graph's nodes of these operators, first to last; safe to edit meanwhile."""
    yield from [node for node in model.graph if node.op_type in operators]


def only_use(value: onnx_ir.Value) -> Any:
    """The one node that reads `value`; None where there are several, or where it is the graph's output."""
    users = {use.node for use in value.uses()}
    return next(iter(users)) if len(users) == 1 and not value.is_graph_output() else None


def add_constant(model: onnx_ir.Model, name: str, array: NDArray[Any]) -> onnx_ir.Value:
    """A new initializer; under a name that is taken already, the array is expected to be the same and is shared."""
    import onnx_ir

    known = model.graph.initializers.get(name)
    if known is not None:
        return known
    tensor = onnx_ir.tensor(np.array(array, order="C"), name=name)
    value = onnx_ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=onnx_ir.TensorType(tensor.dtype))
    model.graph.register_initializer(value)
    return value


def put(
    model: onnx_ir.Model,
    before: onnx_ir.Node,
    operator: str,
    inputs: Sequence[onnx_ir.Value],
    name: str,
    *,
    attributes: Mapping[str, Any] | None = None,
    domain: str = "",
    outputs: int = 1,
) -> onnx_ir.Value:
    """Insert a node ahead of `before`; its output named `name`, or a list of them, named with their number."""
    import onnx_ir

    node = onnx_ir.node(operator, list(inputs), attributes=dict(attributes or {}), domain=domain, num_outputs=outputs)
    node.name = name
    for place, value in enumerate(node.outputs):
        value.name = name if outputs == 1 else f"{name}_{place}"
    model.graph.insert_before(before, node)
    return node.outputs[0] if outputs == 1 else list(node.outputs)


def swap(old: onnx_ir.Value, new: onnx_ir.Value) -> None:
    """Let all that read `old` read `new`; a graph's output keeps its name, type and shape."""
    import onnx_ir

    if old.is_graph_output():
        name, new.type, new.shape = old.name, old.type, old.shape
        old.name = f"{name}.before"
        onnx_ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name = name
    else:
        onnx_ir.convenience.replace_all_uses_with(old, new)


def graph_input(model: onnx_ir.Model, name: str) -> onnx_ir.Value:
    """The graph's input of that name, or None."""
    return next((value for value in model.graph.inputs if value.name == name), None)


def shared_cast(model: onnx_ir.Model, value: onnx_ir.Value, dtype: str, before: onnx_ir.Node) -> Any:
    """`value` cast to an ONNX type such as "INT32": by the cast that is there already, or a new one."""
    import onnx_ir

    target = onnx_ir.DataType[dtype]
    for use in value.uses():
        if use.node.op_type == "Cast" and use.node.attributes["to"].as_int() == target.value:
            return use.node.outputs[0]
    cast = put(model, before, "Cast", [value], f"{value.name}_{dtype.lower()}", attributes={"to": target.value})
    cast.dtype = target
    return cast
