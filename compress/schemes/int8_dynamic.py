"""Dynamic int8 by ONNX Runtime: weights int8 per output channel, activations uint8 with scales taken at run time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.serve.errors import CompressError

if TYPE_CHECKING:
    from edgetune.compress.material import Material


def unsuitable(material: Material) -> str:
    """It applies wherever ONNX Runtime's CPU kernels run."""
    return "" if material.provider == "cpu" else "its kernels run on a CPU only"


def compress(graph: Path, target: Path, material: Material) -> str:
    """Quantize MatMul, Gemm, Attention and the embedding tables of `graph` into `target`.

    Raises:
        CompressError: ONNX Runtime's quantizer refused the graph, or left every weight in float.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(graph))
    # The quantizer infers shapes again and trips over those the exporter left for initializers it transposes.
    del model.graph.value_info[:]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a pre-processing that the exported graph has been through
    try:
        quantize_dynamic(
            model,
            target,
            per_channel=True,
            weight_type=QuantType.QInt8,
            # Fused operators carry no shape inference, so the type of their outputs has to be said.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    except (ValueError, RuntimeError, AttributeError) as error:
        raise CompressError(f"ONNX Runtime's dynamic quantization failed on this graph: {error}") from error
    finally:
        root.setLevel(level)
    return "onnxruntime.quantization.quantize_dynamic(per_channel=True, weight_type=QInt8)"
