"""The head of a decoder graph: the product that makes the logits, and the cut to the last position before it.

A graph that serves gives the logits of the last position alone. What is judged or calibrated wants them all: here the
cut is found and taken out, so the very graph that ships is judged and no second one. Must not import onnx_ir at
module level.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.compress.fusion.surgery import swap
from edgetune.compress.gptq.graph_file import open_graph, write_graph
from edgetune.compress.gptq.matrices import PRODUCTS
from edgetune.compress.layers import tidy
from edgetune.serve.errors import CompressError

if TYPE_CHECKING:
    import onnx_ir

LOGITS = "logits"
_CUTS = ("Slice", "Gather")
# Between the head and the logits: a bias, a factor, the soft cap of Gemma 2, a change of type.
_MOST_STEPS = 8


def head_product(model: onnx_ir.Model) -> Any:
    """The node that multiplies by the head.

    Raises:
        CompressError: the graph has no logits, or they come from something else.
    """
    logits = next((value for value in model.graph.outputs if value.name == LOGITS), None)
    if logits is None:
        raise CompressError(
            f"the graph has the outputs {[value.name for value in model.graph.outputs]}", expected=f"one named {LOGITS}"
        )
    value = logits
    for _ in range(_MOST_STEPS):
        node = value.producer()
        if node is None:
            break
        if node.op_type in (*PRODUCTS, "MatMulNBits"):
            return node
        value = next((one for one in node.inputs if one is not None and one.producer() is not None), None)
        if value is None:
            break
    raise CompressError("no product with a weight matrix makes the logits of this graph")


def before_cut(value: onnx_ir.Value) -> onnx_ir.Value:
    """What `value` was before it was cut to the last position; `value` itself where it was not cut."""
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type in _CUTS and _is_activation(node) else value


def _is_activation(node: onnx_ir.Node) -> bool:
    return node.inputs[0] is not None and node.inputs[0].const_value is None


def write_all_positions(graph: Path, target: Path) -> None:
    """Write `graph` so that its logits are those of every position, (batch, tokens, vocabulary).

    Raises:
        CompressError: the head was not found.
    """
    model = open_graph(graph)
    head = head_product(model)
    cut = head.inputs[0]
    whole = before_cut(cut)
    if whole is not cut:
        swap(cut, whole)
        for value in _down_to_logits(model, head):
            if value.shape is not None and len(value.shape) == 3:
                value.shape = _with_tokens(value.shape)
        tidy(model)
    write_graph(model, target)


def _down_to_logits(model: onnx_ir.Model, head: onnx_ir.Node) -> list[onnx_ir.Value]:
    values = []
    nodes = [head]
    while nodes:
        node = nodes.pop()
        values += node.outputs
        nodes += [use.node for value in node.outputs for use in value.uses()]
    return values


def _with_tokens(shape: onnx_ir.Shape) -> onnx_ir.Shape:
    import onnx_ir

    return onnx_ir.Shape([shape[0], "tokens", shape[2]])
