"""Values of a graph that no text changes: which they are, and what they are, computed by ONNX Runtime itself.

What depends on constants alone is one constant; what depends on the number of tokens besides (relative positions,
windows, masks) can be computed for the longest input and written down as a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir

LENGTHS = frozenset({"lengths"})
# Their result changes from run to run.
_RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Dropout",
}


def dependencies(model: onnx_ir.Model) -> dict[onnx_ir.Value, frozenset[str]]:
    """For each value that a node computes: what it depends on, of `lengths` and the names of the inputs it reads.

    The sizes of an input, read by Shape, count as `lengths`, not as a reading of the input.
    """
    marks_of: dict[Any, frozenset[str]] = {}
    for node in model.graph:
        marks: set[str] = {"random"} if node.op_type in _RANDOM else set()
        for value in node.inputs:
            if value is None or value.is_initializer():
                continue
            if value.is_graph_input():
                marks.add("lengths" if node.op_type == "Shape" else value.name)
            else:
                marks |= marks_of[value]
        for output in node.outputs:
            marks_of[output] = frozenset(marks)
    return marks_of


def ancestors(value: onnx_ir.Value) -> list[onnx_ir.Node]:
    """The nodes that `value` is computed by, each once."""
    seen: dict[Any, None] = {}
    pending = [value.producer()]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen[node] = None
        pending.extend(each.producer() for each in node.inputs if each is not None)
    return list(seen)


def evaluate(model: onnx_ir.Model, value: onnx_ir.Value, feeds: dict[str, NDArray[np.int64]]) -> NDArray[Any]:
    """What ONNX Runtime computes for `value`; `feeds` has the graph's inputs that it reads, (batch, tokens) int64."""
    import onnx_ir
    from onnx import TensorProto, helper

    from edgetune.serve import session  # noqa: F401  # sets what has to stand in the environment before onnxruntime

    import onnxruntime  # isort: skip

    needed = set(ancestors(value))
    nodes = [node for node in model.graph if node in needed]
    read = {each for node in nodes for each in node.inputs if each is not None}
    proto = helper.make_graph(
        [onnx_ir.serde.serialize_node(node) for node in nodes],
        "part",
        [
            helper.make_tensor_value_info(each.name, TensorProto.INT64, ["batch", "tokens"])
            for each in model.graph.inputs
            if each in read
        ],
        [helper.make_empty_tensor_value_info(value.name)],
        [onnx_ir.serde.serialize_tensor(each.const_value) for each in _by_name(read) if each.is_initializer()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in model.graph.opset_imports.items()]
    part = helper.make_model(proto, opset_imports=opsets, ir_version=model.ir_version)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    running = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = {each.name for each in running.get_inputs()}
    result: NDArray[Any] = running.run(None, {name: array for name, array in feeds.items() if name in names})[0]
    return result


def _by_name(values: set[Any]) -> list[Any]:
    return sorted(values, key=lambda value: value.name)


def ones(model: onnx_ir.Model, batch: int, tokens: int) -> dict[str, NDArray[np.int64]]:
    """Feeds of that shape for all inputs, all elements 1."""
    return {value.name: np.ones((batch, tokens), np.int64) for value in model.graph.inputs}
