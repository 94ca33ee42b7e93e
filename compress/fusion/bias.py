"""Biases that a fused operator has taken in, put back beside the product, for schemes whose product adds them free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.compress.fusion.surgery import MICROSOFT, constant, nodes_of, produced_by, put, swap

if TYPE_CHECKING:
    import onnx_ir


def free_biases(model: onnx_ir.Model, gelu: str) -> None:
    """Give the bias of BiasGelu, FastGelu and SkipLayerNormalization back to the product before it.

    Args:
        model: an `onnx_ir.Model`, edited in place.
        gelu: the operator of com.microsoft that BiasGelu becomes: "Gelu" (exact), or "FastGelu" (its tanh form, at
            most 5e-4 away and a third faster on a CPU).
    """
    for node in nodes_of(model, "BiasGelu", "FastGelu"):
        if len(node.inputs) == 2 and _after_product(node.inputs[0], node.inputs[1]):
            name = node.outputs[0].name
            biased = put(model, node, "Add", list(node.inputs), f"{name}.biased")
            operator = "FastGelu" if node.op_type == "FastGelu" else gelu
            swap(node.outputs[0], put(model, node, operator, [biased], f"{name}.free", domain=MICROSOFT))
            model.graph.remove(node, safe=True)
    for node in nodes_of(model, "SkipLayerNormalization"):
        if len(node.inputs) == 5 and _after_product(node.inputs[0], node.inputs[4]):
            biased = put(model, node, "Add", [node.inputs[0], node.inputs[4]], f"{node.outputs[0].name}.biased")
            node.replace_input_with(0, biased)
            node.resize_inputs(4)


def _after_product(value: onnx_ir.Value, bias: onnx_ir.Value) -> bool:
    node = produced_by(value, "MatMul")
    return node is not None and constant(node.inputs[1]) is not None and constant(bias) is not None
