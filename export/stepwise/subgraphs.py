"""Parts of an `onnx_ir` graph by themselves: what a value is computed from, and what it comes to.

A part that reads nothing but token ids, mask and positions is told by its values, however the exporter writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir


def upstream(graph: onnx_ir.Graph, value: onnx_ir.Value) -> list[onnx_ir.Node]:
    """The nodes that a value is computed by, in the graph's order."""
    needed: set[int] = set()
    open_values = [value]
    while open_values:
        node = open_values.pop().producer()
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            open_values += [one for one in node.inputs if one is not None]
    return [node for node in graph if id(node) in needed]


def graph_inputs(nodes: Sequence[onnx_ir.Node]) -> set[str]:
    """Names of the graph's inputs that nodes read."""
    return {value.name for node in nodes for value in node.inputs if value is not None and value.is_graph_input()}


def evaluate(
    nodes: Sequence[onnx_ir.Node], value: onnx_ir.Value, feed: Mapping[str, NDArray[np.int64]]
) -> NDArray[Any]:
    """What a float32 value comes to by the nodes above it alone, in ONNX Runtime.

    Args:
        nodes: as `upstream` gives them; their constants are small.
        value: one of their outputs.
        feed: int64 inputs (rows, tokens); those that no node reads are left out.
    """
    import onnx
    import onnx_ir
    import onnxruntime

    read = graph_inputs(nodes)
    constants = {
        one.name: one.const_value
        for node in nodes
        for one in node.inputs
        if one is not None and one.const_value is not None
    }
    graph = onnx.helper.make_graph(
        [onnx_ir.serde.serialize_node(node) for node in nodes],
        "part",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [None, None]) for name in sorted(read)],
        [onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(tensor.numpy(), name) for name, tensor in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in nodes[0].graph.opset_imports.items()]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[Any] = session.run(None, {name: feed[name] for name in read})[0]
    return result


def constant(graph: onnx_ir.Graph, name: str, array: NDArray[Any]) -> onnx_ir.Value:
    """A new constant of a graph."""
    import onnx_ir

    value = onnx_ir.Value(name=name, const_value=onnx_ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value
