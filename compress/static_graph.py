"""A graph with int8 linear layers by plan: each with a fixed input range, with one taken at run time, or in float.

The kernels are those that ONNX Runtime's CPU provider has for int8 products that end in float: MatMulIntegerToFloat
and QAttention behind one QuantizeLinear for all that read the same activation, DynamicQuantizeMatMul and
DynamicQuantizeLinear where ranges are taken at run time. Must not import onnx at module level.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.fusion.surgery import MICROSOFT, add_constant
from edgetune.compress.int8 import quantize_columns, quantize_tables
from edgetune.compress.layers import Layer, find_layers, replace, tidy
from edgetune.compress.ranges import Range

if TYPE_CHECKING:
    import onnx_ir

FloatArray = NDArray[np.float32]
Mode = Literal["static", "dynamic", "float"]


@dataclass(frozen=True)
class Plan:
    """How each linear layer of a graph is computed.

    Attributes:
        modes: by the layer's key.
        ranges: of the activations that static layers read, by the activation's name, after balancing.
        balance: by the activation's name, what its channels are divided by, and the weights' rows multiplied:
            (channels,) float32.
    """

    modes: Mapping[str, Mode]
    ranges: Mapping[str, Range] = field(default_factory=dict)
    balance: Mapping[str, FloatArray] = field(default_factory=dict)

    def with_modes(self, modes: Mapping[str, Mode]) -> Plan:
        """This plan with other modes for some layers."""
        return dataclasses.replace(self, modes={**self.modes, **modes})


def write_planned(graph: Path, plan: Plan, target: Path, *, tables: bool = False) -> None:
    """Write `graph` with its linear layers as the plan says.

    Args:
        graph: a float graph, as `write_prepared` wrote it.
        plan: its layers.
        target: the file to write.
        tables: also put embedding tables in int8 by row.
    """
    import onnx_ir

    model = onnx_ir.load(graph)
    _Builder(model, plan).build()
    if tables:
        quantize_tables(model)
    tidy(model)
    onnx_ir.save(model, target)


class _Builder:
    """One pass over a graph; quantized inputs and weights are made once and shared."""

    def __init__(self, model: onnx_ir.Model, plan: Plan) -> None:
        self.model = model
        self.plan = plan
        self.balanced: dict[str, Any] = {}
        self.quantized: dict[tuple[str, str], tuple[Any, Any, Any]] = {}

    def build(self) -> None:
        for layer in find_layers(self.model):
            mode = self.plan.modes.get(layer.key, "float")
            if mode == "float":
                continue
            if mode == "dynamic" and not layer.is_attention:
                self._replace(layer, self._dynamic_product(layer))
            else:
                self._replace(layer, self._product(layer, mode))

    def _replace(self, layer: Layer, product: onnx_ir.Value) -> None:
        old = [layer.node] if layer.tail is layer.node else [layer.node, layer.tail]
        replace(self.model, old, [product])

    def _product(self, layer: Layer, mode: str) -> onnx_ir.Value:
        """MatMulIntegerToFloat or QAttention behind the shared quantization of its input."""
        import onnx_ir

        values, scale, zero = self._input(layer, mode)
        weight, weight_scale, weight_zero = self._weight(layer)
        if not layer.is_attention:
            inputs = [values, weight, scale, weight_scale, zero, weight_zero, self._bias(layer)]
            return onnx_ir.node("MatMulIntegerToFloat", inputs, domain=MICROSOFT)
        inputs = [values, weight, self._bias(layer), scale, weight_scale, layer.mask, zero, weight_zero]
        return onnx_ir.node("QAttention", inputs, attributes=layer.settings, domain=MICROSOFT)

    def _dynamic_product(self, layer: Layer) -> onnx_ir.Value:
        import onnx_ir

        weight, scale, _ = self._weight(layer)
        inputs = [self._balanced(layer), weight, scale, None, self._bias(layer)]
        return onnx_ir.node("DynamicQuantizeMatMul", inputs, domain=MICROSOFT)

    def _input(self, layer: Layer, mode: str) -> tuple[onnx_ir.Value, onnx_ir.Value, onnx_ir.Value]:
        """The quantized activation with its scale and zero point, one for all layers that read it in this mode."""
        import onnx_ir

        source = layer.source
        if (source.name, mode) not in self.quantized:
            before = self._balanced(layer)
            if mode == "dynamic":
                node = onnx_ir.node("DynamicQuantizeLinear", [before], num_outputs=3)
                values, scale, zero = node.outputs
            else:
                span = self.plan.ranges[source.name]
                scale = add_constant(self.model, f"{source.name}_scale", np.array(span.scale))
                zero = add_constant(self.model, f"{source.name}_zero", np.array(span.zero_point))
                node = onnx_ir.node("QuantizeLinear", [before, scale, zero])
                values = node.outputs[0]
            values.name = f"{source.name}_{mode}_uint8"
            self.model.graph.insert_before(layer.node, node)
            self.quantized[source.name, mode] = (values, scale, zero)
        return self.quantized[source.name, mode]

    def _balanced(self, layer: Layer) -> onnx_ir.Value:
        """The activation, divided by its balance where it has one: in the norm before it, else by a Mul."""
        import onnx_ir

        source = layer.source
        factors = self.plan.balance.get(source.name)
        if factors is None:
            return source
        if source.name not in self.balanced:
            if not self._folded(source, factors):
                inverse = add_constant(self.model, f"{source.name}_balance", 1 / factors)
                node = onnx_ir.node("Mul", [source, inverse])
                node.outputs[0].name = f"{source.name}_balanced"
                self.model.graph.insert_before(layer.node, node)
                self.balanced[source.name] = node.outputs[0]
            else:
                self.balanced[source.name] = source
        return self.balanced[source.name]

    def _folded(self, source: onnx_ir.Value, factors: FloatArray) -> bool:
        """Fold the balance into the norm's weight and bias, where linear layers alone read what it makes."""
        norm = source.producer()
        places = norm_parameters(norm)
        readers = [use.node for use in source.uses()]
        mine = {layer.node for layer in find_layers(self.model) if layer.source is source}
        values = [norm.inputs[place] for place in places if len(norm.inputs) > place and norm.inputs[place] is not None]
        shared = any(len(value.uses()) > 1 or value.const_value is None for value in values)
        if not places or shared or source.is_graph_output() or any(reader not in mine for reader in readers):
            return False
        for value in values:
            folded = (value.const_value.numpy() / factors).astype(np.float32)
            new = add_constant(self.model, f"{value.name}_balanced", folded)
            norm.replace_input_with(next(i for i, one in enumerate(norm.inputs) if one is value), new)
        return True

    def _bias(self, layer: Layer) -> onnx_ir.Value:
        return None if layer.bias is None else add_constant(self.model, f"{layer.key}.bias", layer.bias)

    def _weight(self, layer: Layer) -> tuple[onnx_ir.Value, onnx_ir.Value, onnx_ir.Value]:
        """The int8 matrix with scales and zero points by column, one for all layers that share it."""
        name = layer.weight_name
        factors = self.plan.balance.get(layer.source.name)
        if factors is not None:
            name = f"{name}_balanced"
        known = self.model.graph.initializers
        if f"{name}_int8" not in known:
            weight = layer.weight if factors is None else layer.weight * factors[:, None]
            quantized, scale = quantize_columns(weight)
            add_constant(self.model, f"{name}_int8", quantized)
            add_constant(self.model, f"{name}_scales", scale)
            add_constant(self.model, f"{name}_zeros", np.zeros(len(scale), np.int8))
        return known[f"{name}_int8"], known[f"{name}_scales"], known[f"{name}_zeros"]


_NORM_PARAMETERS = {
    "LayerNormalization": (1, 2),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3),
    "EmbedLayerNormalization": (5, 6),
}


def norm_parameters(node: onnx_ir.Node) -> tuple[int, ...]:
    """Where a norm's weight and bias stand among its inputs; empty for another node."""
    return () if node is None else _NORM_PARAMETERS.get(node.op_type, ())


def write_prepared(graph: Path, target: Path) -> list[Layer]:
    """Write `graph` with the biases that fused operators took in put back beside the products, which add them free.

    Returns:
        The layers that a plan for `target` may speak of.
    """
    import onnx_ir

    from edgetune.compress.fusion.bias import free_biases

    model = onnx_ir.load(graph)
    free_biases(model, "FastGelu")
    onnx_ir.save(model, target)
    return find_layers(model)
