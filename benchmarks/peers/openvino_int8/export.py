"""OpenVINO int8: transformers' OpenVINOExporter with its NNCFOpenVINOQuantizer, calibrated on 300 training texts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SAMPLES = 300  # NNCF's default subset size


def main() -> None:
    """Write openvino_model.xml and .bin, config.json and the tokenizer's files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="A standard transformers folder.")
    parser.add_argument("--data", type=Path, required=True, help="A build's data set; its training texts calibrate.")
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()

    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.exporters import NNCFOpenVINOQuantizer, OpenVINOConfig, OpenVINOExporter

    tokenizer = AutoTokenizer.from_pretrained(said.model)
    model = AutoModelForSequenceClassification.from_pretrained(said.model).eval()
    rows = json.loads(said.data.read_text(encoding="utf-8"))["train"]["texts"]
    texts = rows[:: max(1, len(rows) // SAMPLES)][:SAMPLES]
    samples = [dict(tokenizer([text], truncation=True, return_tensors="pt")) for text in texts]
    inputs = dict(tokenizer(["a text", "another text, a little longer"], padding=True, return_tensors="pt"))
    config = OpenVINOConfig(dynamic=True, quantizer=NNCFOpenVINOQuantizer(calibration_dataset=samples))
    OpenVINOExporter().export(model, inputs, config=config).save_pretrained(said.out)
    model.config.save_pretrained(said.out)
    tokenizer.save_pretrained(said.out)


if __name__ == "__main__":
    main()
