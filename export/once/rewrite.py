"""Rewrites of the exported graph: what the exporter's fusions leave undone, each exact.

1. Constants are folded whatever their size: the exporter leaves the joined query-key-value weights as a Concat of
   three initializers, which hides them from quantization.
2. A fused Attention gets the attention mask itself instead of a float bias made from it (of a decoder, `unidirectional`
   beside it), and loses a `qkv_hidden_sizes` that says nothing: only then can ONNX Runtime quantize it. On MiniLM int8
   this halves the latency (1.2 against 2.5 ms for 14 tokens).
3. Inputs that nothing reads go (DeBERTa-v3 has no token types), and the open dimensions get their names.
4. Node metadata goes: the exporter writes stack traces and source lines there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir

_EVERY_SIZE = 1 << 40
_ORDERS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Trilu")


def rewrite(model: onnx_ir.Model, sizes: Sequence[int] = ()) -> None:
    """Rewrite an `onnx_ir.Model` in place.

    Args:
        sizes: of pictures, which are all of one size: (channels, height, width); none of texts.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript.optimizer import fold_constants

    fold_constants(model, input_size_limit=_EVERY_SIZE, output_size_limit=_EVERY_SIZE)
    _mask_attention(model)
    RemoveUnusedNodesPass()(model)
    _tidy_inputs(model.graph, sizes)
    strip_metadata(model)


def _mask_attention(model: onnx_ir.Model) -> None:
    import onnx_ir

    mask = next((value for value in model.graph.inputs if value.name == "attention_mask"), None)
    attentions = [node for node in model.graph if node.op_type == "Attention" and node.domain == "com.microsoft"]
    biases = {node.inputs[5] for node in attentions if len(node.inputs) > 5 and node.inputs[5] is not None}
    # One bias for all layers is the padding mask. Where layers differ (relative positions, sliding windows),
    # the bias carries more than the mask and stays.
    orders = _orders(next(iter(biases)), mask) if mask is not None and len(biases) == 1 else None
    if mask is None or orders not in (0, 1):
        return
    cast = onnx_ir.node("Cast", [mask], attributes={"to": onnx_ir.DataType.INT32.value})
    cast.outputs[0].name = "attention_mask_int32"
    cast.outputs[0].dtype = onnx_ir.DataType.INT32
    model.graph.insert_before(attentions[0], cast)
    for node in attentions:
        if len(node.inputs) > 5 and node.inputs[5] is not None:
            node.replace_input_with(3, cast.outputs[0])
            node.replace_input_with(5, None)
            if orders:
                node.attributes["unidirectional"] = onnx_ir.AttrInt64("unidirectional", 1)
        sizes = node.attributes.get("qkv_hidden_sizes")
        if sizes is not None and len(set(sizes.as_ints())) == 1:
            node.attributes.pop("qkv_hidden_sizes")


def _orders(bias: onnx_ir.Value, mask: onnx_ir.Value) -> int | None:
    """How often two sets of positions are compared for `bias`, computed from the mask, shapes and constants alone.

    0 is a padding mask; 1 one in which a token sees those before it alone (OPT); more are windows. None where a weight
    or another input goes in, or the mask does not.
    """
    seen: set[Any] = set()
    pending, reaches_mask, orders = [bias], False, 0
    while pending:
        value = pending.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        if value is mask:
            reaches_mask = True
        elif value.is_initializer():
            if value.const_value is not None and value.const_value.size > 8:
                return None
        elif value.producer() is None:
            return None
        elif value.producer().op_type != "Shape":  # a shape carries sizes, not values
            node = value.producer()
            orders += node.op_type in _ORDERS and not any(map(_is_constant, node.inputs))
            pending.extend(node.inputs)
    return orders if reaches_mask else None


def _is_constant(value: onnx_ir.Value | None) -> bool:
    if value is None:
        return False
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def _tidy_inputs(graph: onnx_ir.Graph, sizes: Sequence[int]) -> None:
    """Keep the inputs that are read, and call the dimensions of all inputs and outputs `batch` and `tokens`."""
    import onnx_ir

    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    for value in [*graph.inputs, *graph.outputs]:
        names = ("batch", *sizes) if sizes and len(value.shape) > 2 else ("batch", "tokens")
        value.shape = onnx_ir.Shape(
            [size if isinstance(size, int) else names[place] for place, size in enumerate(value.shape)]
        )
    # The exporter's own symbols on the values between would contradict these names; ONNX Runtime infers them again.
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def strip_metadata(model: onnx_ir.Model) -> None:
    """Drop documentation and metadata of the model, its graph, nodes and values."""
    model.doc_string = None
    model.metadata_props.clear()
    model.graph.doc_string = None
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.doc_string = None
            value.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.doc_string = None
        value.metadata_props.clear()
