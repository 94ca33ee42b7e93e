"""Activations: GELU written out in its parts becomes one node, and takes the bias of the linear layer before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.compress.fusion.surgery import MICROSOFT, constant, nodes_of, produced_by, put, scalar, swap

if TYPE_CHECKING:
    import onnx_ir


def fuse_activations(model: onnx_ir.Model) -> None:
    """Fuse the tanh form of GELU (ALBERT's gelu_new) to FastGelu, and plain Gelu behind a bias to BiasGelu."""
    for node in nodes_of(model, "Tanh"):
        _fuse_tanh_gelu(model, node)
    for node in nodes_of(model, "Gelu"):
        form = node.attributes["approximate"].as_string() if "approximate" in node.attributes else "none"
        source, bias = _split_bias(node.inputs[0])
        if form == "none" and bias is not None:
            _replace(model, node, "BiasGelu", [source, bias], node.outputs[0])


def _fuse_tanh_gelu(model: onnx_ir.Model, tanh: onnx_ir.Node) -> None:
    """`0.5 x (1 + tanh(0.79788 (x + 0.044715 x^3)))`."""
    scaled = produced_by(tanh.inputs[0], "Mul")
    inner = produced_by(scaled and scaled.inputs[0], "Add")
    if scaled is None or inner is None or not _near(scaled.inputs[1], 0.7978846):
        return
    x = inner.inputs[0]
    cubed = produced_by(inner.inputs[1], "Mul")
    power = produced_by(cubed and cubed.inputs[0], "Pow")
    if cubed is None or power is None or power.inputs[0] is not x:
        return
    if not _near(cubed.inputs[1], 0.044715) or not _near(power.inputs[1], 3.0):
        return
    shifted = _sole_user(tanh, "Add")
    product = _sole_user(shifted, "Mul")
    if shifted is None or product is None or not _near(shifted.inputs[1], 1.0):
        return
    half = next((produced_by(value, "Mul") for value in product.inputs if value is not shifted.outputs[0]), None)
    if half is None or half.inputs[0] is not x or not _near(half.inputs[1], 0.5):
        return
    source, bias = _split_bias(x)
    _replace(model, product, "FastGelu", [x] if bias is None else [source, bias], product.outputs[0])


def _replace(
    model: onnx_ir.Model, node: onnx_ir.Node, operator: str, inputs: list[onnx_ir.Value], output: onnx_ir.Value
) -> None:
    swap(output, put(model, node, operator, inputs, f"{output.name}.fused", domain=MICROSOFT))
    model.graph.remove(node, safe=True)


def _near(value: onnx_ir.Value, number: float) -> bool:
    constant = scalar(value)
    return constant is not None and abs(constant - number) < 1e-5 * abs(number)


def _sole_user(node: onnx_ir.Node, operator: str) -> Any:
    if node is None:
        return None
    users = [use.node for use in node.outputs[0].uses()]
    return users[0] if len(users) == 1 and users[0].op_type == operator else None


def _split_bias(value: onnx_ir.Value) -> tuple[Any, Any]:
    """`x` and `bias` of a sum with a constant row; the value itself and None where it is no such sum."""
    node = produced_by(value, "Add")
    if node is not None:
        for place in (1, 0):
            array = constant(node.inputs[place])
            if array is not None and array.ndim == 1 and array.size > 1:
                return node.inputs[1 - place], node.inputs[place]
    return value, None
