"""Dynamic int8: weights int8 per output channel, activations uint8 with scales taken at run time.

Written node by node, because ONNX Runtime's quantizer leaves biases outside the products and a table's scale common
to all of its rows; it is asked only where this writer finds no linear layer.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.serve.errors import CompressError

if TYPE_CHECKING:
    from edgetune.compress.material import Material


def unsuitable(material: Material) -> str:
    """It applies wherever ONNX Runtime's CPU kernels run."""
    return "" if material.provider == "cpu" else "its kernels run on a CPU only"


def compress(graph: Path, target: Path, material: Material) -> str:
    """Quantize linear layers, attention and the embedding tables of `graph` into `target`.

    Raises:
        CompressError: the graph has nothing that can be quantized, or ONNX Runtime's quantizer refused it.
    """
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from edgetune.compress.fusion.bias import free_biases
    from edgetune.compress.int8 import quantize_attention, quantize_linear, quantize_tables

    model = onnx_ir.load(graph)
    free_biases(model, "FastGelu")
    attentions, layers = quantize_attention(model), quantize_linear(model)
    if attentions + layers == 0:
        return _by_onnxruntime(graph, target)
    tables = quantize_tables(model)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()
    model.graph.opset_imports["com.microsoft"] = 1
    onnx_ir.save(model, target)
    return f"edgetune.compress.int8: {layers} linear layers, {attentions} attentions, {tables} tables"


def _by_onnxruntime(graph: Path, target: Path) -> str:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(graph))
    # The quantizer infers shapes again and trips over those the exporter left for initializers it transposes.
    del model.graph.value_info[:]
    options: dict[str, Any] = {"per_channel": True, "weight_type": QuantType.QInt8}
    # Fused operators carry no shape inference, so the type of their outputs has to be said.
    options["extra_options"] = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a pre-processing that the exported graph has been through
    try:
        quantize_dynamic(model, target, **options)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise CompressError(f"ONNX Runtime's dynamic quantization failed on this graph: {error}") from error
    finally:
        root.setLevel(level)
    return "onnxruntime.quantization.quantize_dynamic(per_channel=True, weight_type=QInt8)"
