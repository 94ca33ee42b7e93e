"""transformers' own OnnxExporter with its OnnxRuntimeQuantizer, dynamic int8, as the exporters' documentation says.

With --fused the graph is first fused into ONNX Runtime's operators (`ort_fusions="cpu"`, eager attention), which the
documentation offers too; quantizing such a graph needs one option of ONNX Runtime that the exporter does not set.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Write model.onnx, config.json and the tokenizer's files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="A standard transformers folder.")
    parser.add_argument("--data", type=Path, required=True, help="Training texts; not used, nothing is calibrated.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fused", action="store_true")
    said = parser.parse_args()

    import onnx
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.exporters import OnnxConfig, OnnxExporter, OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    tokenizer = AutoTokenizer.from_pretrained(said.model)
    attention = {"attn_implementation": "eager"} if said.fused else {}
    model = AutoModelForSequenceClassification.from_pretrained(said.model, **attention).eval()
    # Two rows of unlike lengths: a dimension of 1 in the example would be frozen.
    inputs = dict(tokenizer(["a text", "another text, a little longer"], padding=True, return_tensors="pt"))
    options = {"extra_options": {"DefaultTensorType": onnx.TensorProto.FLOAT}} if said.fused else {}
    quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(**options))
    config = OnnxConfig(dynamic=True, ort_fusions="cpu" if said.fused else None, quantizer=quantizer)
    OnnxExporter().export(model, inputs, config=config).save_pretrained(said.out)
    model.config.save_pretrained(said.out)
    tokenizer.save_pretrained(said.out)


if __name__ == "__main__":
    main()
