"""Weights alone in 8 or 4 bits, by block: products by MatMulNBits, tables by GatherBlockQuantized, activations float.

For models whose time goes into reading weights. How a block's scale and offset are found is chosen by measurement
between ONNX Runtime's three ways: rounding to nearest, k-quant (of llama.cpp) and HQQ (Badri and Shaji 2023). Must not
import onnx at module level.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.compress.calibration import answers, calibration, distance
from edgetune.compress.fusion.surgery import MICROSOFT, add_constant
from edgetune.compress.int8 import quantize_tables
from edgetune.compress.layers import Layer, find_layers, replace, tidy
from edgetune.compress.tables import quantize_tables_int4
from edgetune.serve.errors import CompressError

if TYPE_CHECKING:
    import onnx_ir

    from edgetune.compress.material import Material

BLOCK = 32
# Activations go to int8 by block inside the kernel, which is the fast way on a CPU.
ACCURACY_LEVEL = 4
METHODS = {8: ("nearest", "k-quant"), 4: ("nearest", "k-quant", "hqq")}
# HQQ's zero points are floats, for which the CPU kernel has only a slow way: 36 ms a text of 14 tokens on MiniLM.
SLOW_ON_CPU = ("hqq",)
# Below this a model fits into the caches that a CPU of today has, or nearly, and products are bound by arithmetic.
LEAST_PARAMETERS = 200_000_000


def too_small(material: Material) -> str:
    """Why weight-only quantization does not pay for this model on a CPU; empty where it may.

    The size is that of the weights' file in fp32, which is what tuning writes: nothing is opened.
    """
    if material.provider != "cpu":
        return ""
    parameters = sum(file.stat().st_size for file in material.model.model_folder.glob("*.safetensors")) // 4
    if parameters >= LEAST_PARAMETERS:
        return ""
    return (
        f"a model of {parameters / 1e6:.0f} M parameters is bound by arithmetic on a CPU, not by reading weights: "
        "int8_dynamic answers faster at the same size"
    )


def compress_weights(graph: Path, target: Path, material: Material, bits: int) -> str:
    """Write `graph` with its weights in `bits` bits, by the method that stays nearest to the float logits.

    Raises:
        CompressError: no weight could be quantized, or no method gives finite logits.
    """
    texts = calibration(material, graph)
    expected = answers(graph, texts.held_back)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        methods = [name for name in METHODS[bits] if material.provider != "cpu" or name not in SLOW_ON_CPU]
        tried = {name: Path(scratch) / f"{name}.onnx" for name in methods}
        distances = {}
        for name, path in tried.items():
            if write_quantized(graph, path, bits, name):
                distances[name] = distance(expected, answers(path, texts.held_back))
        best = min(distances, key=lambda name: distances[name])
        if not np.isfinite(distances[best]):
            raise CompressError(f"weights in {bits} bits give logits that are not finite on training texts")
        tried[best].replace(target)
    measured = ", ".join(f"{name} {value:.2g}" for name, value in distances.items())
    return (
        f"MatMulNBits(bits={bits}, block_size={BLOCK}, accuracy_level={ACCURACY_LEVEL}) by {best}; "
        f"logit distances on held-back training texts: {measured}"
    )


def write_quantized(graph: Path, target: Path, bits: int, method: str) -> bool:
    """Write `graph` with its linear layers and tables in `bits` bits, by one of `METHODS`.

    Returns:
        Whether the method could; ONNX Runtime's k-quant packs no 4 bits of a column with an odd number of blocks.

    Raises:
        CompressError: the graph has no weight to quantize.
    """
    import onnx
    import onnx_ir

    model = onnx_ir.load(graph)
    names = _as_products(model)
    if not names:
        raise CompressError("no linear layer with a constant weight was found in this graph")
    if (method, bits) == ("k-quant", 4) and any(-(-len(layer.weight) // BLOCK) % 2 for layer in find_layers(model)):
        return False
    (quantize_tables if bits == 8 else quantize_tables_int4)(model)
    tidy(model)
    with _quiet():
        from onnxruntime.quantization import matmul_nbits_quantizer as nbits

        quantizer = nbits.MatMulNBitsQuantizer(
            onnx_ir.to_proto(model),
            bits=bits,
            block_size=BLOCK,
            accuracy_level=ACCURACY_LEVEL,
            op_types_to_quantize=("MatMul",),
            algo_config=_algorithm(nbits, bits, method, names),
        )
        quantizer.process()
    quantized = quantizer.model.model
    for node in quantized.graph.node:
        if node.op_type == "MatMulNBits" and not any(one.name == "accuracy_level" for one in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("accuracy_level", ACCURACY_LEVEL))
    onnx.save(quantized, str(target))
    return True


def _algorithm(nbits: Any, bits: int, method: str, names: list[str]) -> Any:
    if method == "k-quant":
        return nbits.KQuantWeightOnlyQuantConfig(
            op_types_to_quantize=("MatMul",), customized_weight_config={name: {"bits": bits} for name in names}
        )
    if method == "hqq":
        return nbits.HQQWeightOnlyQuantConfig(block_size=BLOCK, bits=bits, op_types_to_quantize=("MatMul",))
    return nbits.DefaultWeightOnlyQuantConfig(
        block_size=BLOCK, is_symmetric=False, accuracy_level=ACCURACY_LEVEL, bits=bits, op_types_to_quantize=("MatMul",)
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Put the loggers as they were and drop what is printed: the quantizer sets up logging and draws a bar."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    # With a handler in place, the quantizer's basicConfig on import does nothing.
    root.addHandler(logging.NullHandler())
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # HQQ opens the weights without a copy, and torch warns that they must not be written to.
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def _as_products(model: onnx_ir.Model) -> list[str]:
    """Make every linear layer a MatMul, which is all that the quantizer knows; their names."""
    for layer in find_layers(model):
        if layer.is_attention:
            _split_attention(model, layer)
        elif layer.node.op_type == "Gemm":
            _split_gemm(model, layer)
    names = []
    for place, layer in enumerate(find_layers(model)):
        layer.node.name = layer.node.name or f"linear_{place}"
        names.append(layer.node.name)
    return names


def _split_gemm(model: onnx_ir.Model, layer: Layer) -> None:
    import onnx_ir

    weight = add_constant(model, f"{layer.weight_name}_columns", np.ascontiguousarray(layer.weight))
    new = [onnx_ir.node("MatMul", [layer.source, weight], name=f"{layer.key}_product")]
    new[0].outputs[0].name = f"{layer.key}_product"
    if layer.bias is not None:
        new.append(onnx_ir.node("Add", [new[0].outputs[0], add_constant(model, f"{layer.key}.bias", layer.bias)]))
    replace(model, [layer.node], new)


def _split_attention(model: onnx_ir.Model, layer: Layer) -> None:
    """Attention with weights as one product, a Split and the MultiHeadAttention that takes what they give."""
    import onnx_ir

    product = onnx_ir.node("MatMul", [layer.source, layer.node.inputs[1]], name=f"{layer.key}_product")
    product.outputs[0].name = f"{layer.key}_product"
    split = onnx_ir.node(
        "Split", [product.outputs[0]], attributes={"axis": -1, "num_outputs": 3}, num_outputs=3
    )  # fmt: skip
    for name, output in zip(("query", "key", "value"), split.outputs, strict=True):
        output.name = f"{layer.key}_{name}"
    bias = None if layer.bias is None else add_constant(model, f"{layer.key}.bias", layer.bias)
    attention = onnx_ir.node(
        "MultiHeadAttention",
        [*split.outputs, bias, layer.mask],
        attributes=layer.settings,
        domain=MICROSOFT,
    )
    replace(model, [layer.node], [product, split, attention])
