"""Quantized matrices put into a decoder graph: MatMulNBits for products, GatherBlockQuantized for look-ups.

A head that is also the embedding is stored once: the bytes that the product reads, reshaped, are those that the
look-up reads. Scales are stored as float16 and cast as the graph loads. Must not import onnx_ir at module level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetune.compress.fusion.surgery import MICROSOFT, add_constant, put
from edgetune.compress.gptq.matrices import Matrix, Product
from edgetune.compress.gptq.rounding import Blocks, FloatArray
from edgetune.compress.layers import replace

if TYPE_CHECKING:
    import onnx_ir

# The kernel rounds activations to int8 by block: about twice as fast a step as floats, with the same divergence.
ACCURACY_LEVEL = 4


def write_matrix(model: onnx_ir.Model, matrix: Matrix, blocks: Blocks) -> None:
    """Let everything that reads `matrix` read `blocks`, in place; `tidy` then drops the float weights."""
    stored = _stored(model, matrix, blocks)
    for product in matrix.products:
        _write_product(model, matrix, product, blocks, stored)
    for lookup in matrix.lookups:
        _write_lookup(model, matrix, lookup, blocks, stored)


def _stored(model: onnx_ir.Model, matrix: Matrix, blocks: Blocks) -> list[onnx_ir.Value]:
    """The levels, scales and, unless all are in the middle, zero points as initializers.

    The levels have the shape that their first reader wants.
    """
    packed = blocks.packed()
    if not matrix.products:
        packed = packed.reshape(len(packed), -1)
    factor = np.float32(matrix.products[0].factor if matrix.products else 1)
    name = f"{matrix.name}.int{blocks.grid.bits}"
    stored = [
        add_constant(model, name, packed),
        _stored_scales(model, f"{name}.scales", blocks.grid.scales * factor),
    ]
    if not blocks.grid.is_symmetric:
        stored.append(add_constant(model, f"{name}.zeros", blocks.packed_zeros()))
    return stored


def _stored_scales(model: onnx_ir.Model, name: str, scales: FloatArray) -> onnx_ir.Value:
    """The scales as the operators take them, float32; cast from float16 as the graph loads, if that loses nothing."""
    import onnx_ir

    with np.errstate(over="ignore"):
        half = scales.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), scales):
        return add_constant(model, name, scales)
    attributes = {"to": int(onnx_ir.DataType.FLOAT)}
    stored = add_constant(model, name, half)
    # First in the graph, ahead of the look-up and of the product that share it.
    return put(model, model.graph[0], "Cast", [stored], f"{name}.float", attributes=attributes)


def _write_product(
    model: onnx_ir.Model, matrix: Matrix, product: Product, blocks: Blocks, stored: list[onnx_ir.Value]
) -> None:
    import onnx_ir

    outputs = len(blocks.levels)
    bias = None
    if product.bias is not None:
        row = np.ascontiguousarray(np.broadcast_to(product.bias, (outputs,)))
        bias = add_constant(model, f"{product.tail.outputs[0].name}.bias", row)
    attributes = {
        "K": blocks.inputs,
        "N": outputs,
        "bits": blocks.grid.bits,
        "block_size": blocks.block,
        "accuracy_level": ACCURACY_LEVEL,
    }
    inputs = [product.node.inputs[0], *stored]
    if bias is not None:
        inputs += [*[None] * (5 - len(inputs)), bias]
    node = onnx_ir.node("MatMulNBits", inputs, attributes=attributes, domain=MICROSOFT, name=f"{matrix.name}.product")
    old = [product.node] if product.tail is product.node else [product.node, product.tail]
    replace(model, old, [node])


def _write_lookup(
    model: onnx_ir.Model, matrix: Matrix, lookup: onnx_ir.Node, blocks: Blocks, stored: list[onnx_ir.Value]
) -> None:
    import onnx_ir

    levels, *grid = stored
    if matrix.products:
        shape = add_constant(model, f"{levels.name}.rows_shape", np.asarray([len(blocks.levels), -1], np.int64))
        levels = put(model, lookup, "Reshape", [levels, shape], f"{levels.name}.rows")
    attributes = {"bits": blocks.grid.bits, "block_size": blocks.block, "gather_axis": 0, "quantize_axis": 1}
    inputs = [levels, lookup.inputs[1], *grid]
    node = onnx_ir.node(
        "GatherBlockQuantized", inputs, attributes=attributes, domain=MICROSOFT, name=f"{matrix.name}.lookup"
    )
    replace(model, [lookup], [node])
