"""The layers of a graph that multiply by a weight matrix: the linear ones, and the fused attentions with theirs inside.

What static int8 and weight-only quantization put other kernels in the place of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.fusion.surgery import MICROSOFT, constant, nodes_of
from edgetune.compress.linear import linear_layers

if TYPE_CHECKING:
    import onnx_ir

FloatArray = NDArray[np.float32]
# What QAttention and MultiHeadAttention take over as it is.
ATTENTION_SETTINGS = ("num_heads", "unidirectional", "mask_filter_value", "scale")


@dataclass(frozen=True)
class Layer:
    """One product of an activation with a weight matrix.

    Attributes:
        key: name of what the layer makes; the same in every copy of the graph.
        node: MatMul, Gemm or com.microsoft Attention.
        tail: the last node that the layer takes in: `node`, or the Add of its bias.
        weight: (K, N) float32.
        bias: (N,) float32, or None.
    """

    key: str
    node: Any
    tail: Any
    weight: FloatArray
    bias: FloatArray | None

    @property
    def source(self) -> onnx_ir.Value:
        """The activation, (..., K) float32; asked of the node, whose inputs change as layers before it are replaced."""
        return self.node.inputs[0]

    @property
    def weight_name(self) -> str:
        """The initializer's name, before what was multiplied into it."""
        return str(self.node.inputs[1].name)

    @property
    def is_attention(self) -> bool:
        """Whether the product is that of query, key and value in a fused attention."""
        return bool(self.node.op_type == "Attention")

    @property
    def mask(self) -> onnx_ir.Value:
        """What a fused attention knows of padding, (batch, tokens) int32, or None."""
        return self.node.inputs[3] if len(self.node.inputs) > 3 else None

    @property
    def settings(self) -> dict[str, object]:
        """The attributes of a fused attention that its stand-ins take over, by name."""
        return {name: one.value for name, one in self.node.attributes.items() if name in ATTENTION_SETTINGS}


def find_layers(model: onnx_ir.Model) -> list[Layer]:
    """The layers of an `onnx_ir.Model`, in the order of its nodes."""
    linears = {one.node: one for one in linear_layers(model)}
    attentions = {node for node in nodes_of(model, "Attention") if _is_plain_attention(node)}
    layers = []
    for node in model.graph:
        if node in linears:
            one = linears[node]
            layers.append(Layer(one.output.name, node, one.bias_node or node, one.weight, one.bias))
        elif node in attentions:
            weight, bias = constant(node.inputs[1]), constant(node.inputs[2])
            assert weight is not None
            layers.append(Layer(node.outputs[0].name, node, node, weight, bias))
    return layers


def _is_plain_attention(node: onnx_ir.Node) -> bool:
    """Whether its weights are constant, with no past, no bias of positions, and query, key and value equally wide."""
    if node.domain != MICROSOFT or constant(node.inputs[1]) is None or constant(node.inputs[2]) is None:
        return False
    odd = {"qkv_hidden_sizes", "do_rotary", "past_present_share_buffer"} & set(node.attributes)
    return not odd and all(value is None for value in node.inputs[4:])


def replace(model: onnx_ir.Model, old: list[onnx_ir.Node], new: list[onnx_ir.Node]) -> None:
    """Put the nodes `new` in the place of `old`; the last new one makes what the last old one made."""
    import onnx_ir

    before, after = old[-1].outputs[0], new[-1].outputs[0]
    after.name, after.type, after.shape = before.name, before.type, before.shape
    onnx_ir.convenience.replace_nodes_and_values(model.graph, old[-1], old, new, [before], [after])


def tidy(model: onnx_ir.Model) -> None:
    """Drop what nothing reads any more, and make sure that Microsoft's operators are declared."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
    model.graph.opset_imports.setdefault(MICROSOFT, 1)
