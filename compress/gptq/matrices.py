"""The weight matrices of a decoder graph: where each is stored, which products and look-ups read it, which stay.

Apart from `compress/layers.py`, which knows encoders: here one matrix can be head and embedding at once, and what
cannot be quantized is told by name. Must not import onnx_ir at module level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.fusion.surgery import constant, only_use

if TYPE_CHECKING:
    import onnx_ir

FloatArray = NDArray[np.float32]
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm")
# GatherBlockQuantized takes no smaller one, and below it a scale costs as much as it saves.
LEAST_BLOCK = 16
LARGEST_BLOCK = 256
_FOLLOWED = ("Transpose", "Identity")
_ROTATES = ("RotaryEmbedding", "GroupQueryAttention")


@dataclass(frozen=True)
class Product:
    """`output = factor * (x @ weight.T) + bias`, the weight seen as (outputs, inputs).

    Attributes:
        node: the MatMul, FusedMatMul or Gemm.
        tail: the last node that the product takes in: `node`, or the Add of its bias.
        factor: the node's alpha.
        bias: (outputs,) float32, beta in it, or None.
    """

    node: Any
    tail: Any
    factor: float
    bias: FloatArray | None


@dataclass(frozen=True)
class Matrix:
    """One stored weight matrix and all that reads it.

    Attributes:
        value: the initializer, an `onnx_ir.Value`.
        is_transposed: whether it is stored as (inputs, outputs).
        products: what multiplies by it.
        lookups: the Gather nodes that read its rows: the embedding, or positions.
        why_left: why it cannot be quantized; empty where it can.
    """

    value: Any
    is_transposed: bool
    products: tuple[Product, ...]
    lookups: tuple[Any, ...]
    why_left: str = ""

    @property
    def name(self) -> str:
        """The initializer's name."""
        return str(self.value.name)

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.value.const_value.shape.numpy()))

    @property
    def stored_bytes(self) -> int:
        """The bytes that it takes in the file."""
        return int(self.value.const_value.nbytes)

    @property
    def inputs(self) -> int:
        """Width of what it is multiplied with; of an embedding the hidden size."""
        return int(self.value.const_value.shape[0 if self.is_transposed else 1])

    def rows(self) -> FloatArray:
        """The weights as (outputs, inputs) float32; of an embedding (tokens, hidden)."""
        array: FloatArray = self.value.const_value.numpy()
        return np.ascontiguousarray(array.T if self.is_transposed else array)

    def block_for(self, block: int) -> int | None:
        """The block to quantize by: `block` or the largest below it that fits; None if none does.

        A product pads its last block, by no more than an eighth of its width where smaller blocks can do that; a
        look-up cannot pad at all.
        """
        fitting = block
        while fitting >= LEAST_BLOCK and not self._fits(fitting):
            fitting //= 2
        return fitting if fitting >= LEAST_BLOCK else None

    def _fits(self, block: int) -> bool:
        padding = -self.inputs % block
        if self.lookups:
            return padding == 0
        return block <= self.inputs and (block == LEAST_BLOCK or 8 * padding <= self.inputs)


def find_matrices(model: onnx_ir.Model) -> tuple[Matrix, ...]:
    """All float weights of two dimensions or more of an `onnx_ir.Model`, in the order of their storing.

    Tables of sines and cosines are none: nothing of them was learnt.
    """
    import onnx_ir

    floats = {onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT16, onnx_ir.DataType.BFLOAT16}
    matrices = []
    for value in model.graph.initializers.values():
        tensor = value.const_value
        table = all(use.node.op_type in _ROTATES for use in value.uses()) and bool(value.uses())
        if tensor.dtype in floats and len(tensor.shape) >= 2 and tensor.size > 1 and not table:
            matrices.append(_matrix(model, value, is_float32=tensor.dtype == onnx_ir.DataType.FLOAT))
    return tuple(matrices)


def _matrix(model: onnx_ir.Model, value: onnx_ir.Value, *, is_float32: bool) -> Matrix:
    products: list[Product] = []
    lookups = []
    ways = set()
    why = "" if is_float32 else f"stored as {value.const_value.dtype.name}"
    if len(value.const_value.shape) != 2:
        why = f"of {len(value.const_value.shape)} dimensions"
    for node, place, flipped in _readers(value):
        reason = _why_unfit(model, value, node, place, flipped=flipped)
        if reason:
            why = why or reason
        elif node.op_type == "Gather":
            lookups.append(node)
            ways.add(False)
        else:
            products.append(_product(node))
            ways.add(_attribute(node, "transB") == int(flipped))
    if not why and not products and not lookups:
        why = "read by nothing"
    if not why and len(ways) > 1:
        why = "multiplied both as it is and transposed"
    if not why and len(products) + len(lookups) > 1 and any(one.factor != 1 for one in products):
        why = "shared by nodes of which one scales it"
    transposed = ways == {True}
    if not why and min(value.const_value.shape.numpy()) < LEAST_BLOCK:
        why = f"of {'x'.join(map(str, value.const_value.shape.numpy()))}, smaller than a block"
    return Matrix(value, transposed, tuple(products), tuple(lookups), why)


def _readers(value: onnx_ir.Value, flipped: bool = False) -> Iterator[tuple[Any, int, bool]]:
    """The nodes that read a weight, at which input, and whether through a transposition."""
    for use in value.uses():
        node = use.node
        turned = node.op_type == "Transpose"
        if node.op_type in _FOLLOWED and not node.outputs[0].is_graph_output():
            yield from _readers(node.outputs[0], flipped != turned)
        else:
            yield node, use.idx, flipped


def _why_unfit(model: onnx_ir.Model, value: onnx_ir.Value, node: onnx_ir.Node, place: int, *, flipped: bool) -> str:
    if node.graph is not model.graph:
        return f"read inside a {node.op_type} of a subgraph"
    if node.op_type == "Gather":
        if place != 0 or node.attributes.get_int("axis", 0) or flipped:
            return "its columns are looked up, not its rows"
        return ""
    if node.op_type not in PRODUCTS:
        return f"read by {node.op_type}"
    if place != 1:
        return f"not the right side of a {node.op_type}"
    if any(_attribute(node, name) for name in ("transA", "transBatchA", "transBatchB")):
        return f"its {node.op_type} transposes the activation"
    if node.op_type != "Gemm" or len(node.inputs) < 3 or node.inputs[2] is None:
        return ""
    bias = constant(node.inputs[2])
    if bias is None or bias.size not in (1, _outputs(node, value, flipped=flipped)):
        return "its Gemm adds more than a constant row"
    return ""


def _outputs(node: onnx_ir.Node, value: onnx_ir.Value, *, flipped: bool) -> int:
    stored_as_rows = _attribute(node, "transB") != int(flipped)
    return int(value.const_value.shape[0 if stored_as_rows else 1])


def _product(node: onnx_ir.Node) -> Product:
    factor = float(_attribute(node, "alpha", 1))
    if node.op_type == "Gemm":
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
        if bias is None:
            return Product(node, node, factor, None)
        row = bias.reshape(-1).astype(np.float32) * np.float32(_attribute(node, "beta", 1))
        return Product(node, node, factor, row)
    after = only_use(node.outputs[0])
    if after is not None and after.op_type == "Add" and after.graph is node.graph:
        other = after.inputs[1] if after.inputs[0] is node.outputs[0] else after.inputs[0]
        row_ = constant(other)
        # The width of the product itself is the bias's, or the Add would widen it.
        if row_ is not None and row_.ndim == 1 and row_.size > 1 and row_.dtype == np.float32:
            return Product(node, after, factor, row_)
    return Product(node, node, factor, None)


def _attribute(node: onnx_ir.Node, name: str, default: float = 0) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)
