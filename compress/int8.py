"""Weights in int8 in ONNX Runtime's operators: linear layers, fused attention, embedding tables.

The operators' signatures are those of the com.microsoft domain in ONNX Runtime 1.23 to 1.31.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.fusion.surgery import MICROSOFT, add_constant, constant, nodes_of, put, swap
from edgetune.compress.linear import linear_layers

if TYPE_CHECKING:
    import onnx_ir

# A table with fewer rows is not worth the nodes.
_SMALLEST_TABLE_ROWS = 32


def quantize_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with a scale for each column, its largest entry at 127.

    Args:
        weight: (rows, columns) float32.

    Returns:
        int8 (rows, columns) and scales (columns,) float32; a column of zeros gets the scale 1.
    """
    scale = np.abs(weight).max(axis=0) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def quantize_linear(model: onnx_ir.Model) -> int:
    """Make each linear layer one DynamicQuantizeMatMul; returns how many there were."""
    layers = list(linear_layers(model))
    for layer in layers:
        name = layer.output.name
        weight, scale = _shared_columns(model, layer.node.inputs[1].name, layer.weight)
        inputs = [layer.x, weight, scale, None]
        if layer.bias is not None:
            inputs.append(add_constant(model, f"{name}.bias", layer.bias))
        swap(layer.output, put(model, layer.node, "DynamicQuantizeMatMul", inputs, f"{name}.int8", domain=MICROSOFT))
        for node in (layer.bias_node, layer.node):
            if node is not None:
                model.graph.remove(node, safe=True)
    return len(layers)


def quantize_attention(model: onnx_ir.Model) -> int:
    """Make each fused Attention with at most a padding mask a QAttention; returns how many there were."""
    done = 0
    for node in nodes_of(model, "Attention"):
        if node.domain != MICROSOFT or not _only_mask(node) or constant(node.inputs[1]) is None:
            continue
        x, matrix, bias, mask = [*node.inputs, None][:4]
        name = node.outputs[0].name
        weight, scale = _shared_columns(model, matrix.name, constant(matrix))  # type: ignore[arg-type]
        zero = add_constant(model, f"{matrix.name}.zero", np.zeros(scale.shape[0], np.int8))
        quantized, step, middle = _quantized(model, node, x)
        inputs = [quantized, weight, bias, step, scale, mask, middle, zero]
        attributes = {"num_heads": node.attributes["num_heads"].as_int()}
        attributes |= {
            key: node.attributes[key].value
            for key in ("scale", "mask_filter_value", "unidirectional")
            if key in node.attributes
        }
        made = put(model, node, "QAttention", inputs, f"{name}.int8", attributes=attributes, domain=MICROSOFT)
        swap(node.outputs[0], made)
        model.graph.remove(node, safe=True)
        done += 1
    return done


def quantize_tables(model: onnx_ir.Model) -> int:
    """Make each look-up in a constant table one in uint8 with a scale for each row; returns how many there were."""
    done = 0
    for node in nodes_of(model, "Gather"):
        table = constant(node.inputs[0])
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        if table is None or table.ndim != 2 or table.dtype != np.float32 or axis or len(table) < _SMALLEST_TABLE_ROWS:
            continue
        name = node.inputs[0].name
        scale = np.abs(table).max(axis=1, keepdims=True) / 127
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        rows = (np.clip(np.rint(table / scale), -127, 127) + 128).astype(np.uint8)  # 128 stands for zero
        inputs = [
            add_constant(model, f"{name}.uint8", rows),
            node.inputs[1],
            add_constant(model, f"{name}.scale", scale),
        ]
        # One block a row: its size is the power of two that holds the width.
        block = max(16, 1 << (table.shape[1] - 1).bit_length())
        attributes = {"bits": 8, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
        made = put(
            model, node, "GatherBlockQuantized", inputs, f"{node.outputs[0].name}.int8", attributes=attributes,
            domain=MICROSOFT,
        )  # fmt: skip
        swap(node.outputs[0], made)
        model.graph.remove(node, safe=True)
        done += 1
    return done


def _shared_columns(model: onnx_ir.Model, name: str, weight: NDArray[np.float32]) -> tuple[Any, Any]:
    """The quantized matrix and its scales as initializers; layers that share a matrix (ALBERT's) go on sharing it."""
    if f"{name}.int8" in model.graph.initializers:
        return model.graph.initializers[f"{name}.int8"], model.graph.initializers[f"{name}.scale"]
    quantized, scale = quantize_columns(weight)
    return add_constant(model, f"{name}.int8", quantized), add_constant(model, f"{name}.scale", scale)


def _quantized(model: onnx_ir.Model, before: onnx_ir.Node, x: onnx_ir.Value) -> list[onnx_ir.Value]:
    """`x` in uint8 with its scale and zero point, by one node for all that read it."""
    for use in x.uses():
        if use.node.op_type == "DynamicQuantizeLinear":
            return list(use.node.outputs)
    outputs: list[Any] = put(model, before, "DynamicQuantizeLinear", [x], f"{x.name}.uint8", outputs=3)
    return outputs


def _only_mask(node: onnx_ir.Node) -> bool:
    """QAttention knows a mask, and nothing of biases, pasts or widths that differ."""
    extra = [value for value in node.inputs[4:] if value is not None]
    odd = {"qkv_hidden_sizes", "do_rotary", "past_present_share_buffer"} & set(node.attributes)
    return not extra and not odd
