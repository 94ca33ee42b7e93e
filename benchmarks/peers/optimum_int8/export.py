"""optimum-onnx: ORTModelForSequenceClassification's export and ORTQuantizer with avx512_vnni, dynamic, per channel.

With --optimize the graph goes through ORTOptimizer at O3 first. Its documentation offers that too, but ORTQuantizer
then stops with "Unable to find data type for weight_name": the option that helps cannot be given to it, so that the
last step is ONNX Runtime's own quantize_dynamic with the same settings.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory


def quantize(model: Path, out: Path) -> None:
    """The documented last step."""
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    ORTQuantizer.from_pretrained(model, file_name="model.onnx").quantize(save_dir=out, quantization_config=config)
    (out / "model_quantized.onnx").rename(out / "model.onnx")


def optimize_and_quantize(model: Path, out: Path) -> None:
    """O3, then the same quantization with the option that a fused graph needs."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTOptimizer
    from optimum.onnxruntime.configuration import AutoOptimizationConfig

    optimizer = ORTOptimizer.from_pretrained(ORTModelForSequenceClassification.from_pretrained(model))
    optimizer.optimize(save_dir=model, optimization_config=AutoOptimizationConfig.O3())
    quantize_dynamic(
        model / "model_optimized.onnx",
        out / "model.onnx",
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def main() -> None:
    """Write model.onnx, config.json and the tokenizer's files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="A standard transformers folder.")
    parser.add_argument("--data", type=Path, required=True, help="Training texts; not used, nothing is calibrated.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--optimize", action="store_true")
    said = parser.parse_args()

    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer

    said.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        exported = Path(folder)
        ORTModelForSequenceClassification.from_pretrained(said.model, export=True).save_pretrained(exported)
        (optimize_and_quantize if said.optimize else quantize)(exported, said.out)
        shutil.copy(exported / "config.json", said.out)
    AutoTokenizer.from_pretrained(said.model).save_pretrained(said.out)


if __name__ == "__main__":
    main()
