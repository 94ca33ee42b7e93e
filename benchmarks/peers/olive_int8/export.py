"""Olive's two commands: `olive optimize` to a fused fp32 graph, `olive quantize` to dynamic int8.

One command alone does not do it: `olive optimize --precision int8` is static and fetches a language-modelling set
from a hub to calibrate on. The default exporter is for generative models only, so one is named. With --torchscript
it is the older one. Olive writes no tokenizer, and the tokenizer and config.json are copied.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory


def olive(command: list[str]) -> None:
    """One command of Olive's, from this environment."""
    subprocess.run([Path(sys.executable).parent / "olive", *command, "--disable_telemetry"], check=True)


def main() -> None:
    """Write model.onnx, config.json and the tokenizer's files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="A standard transformers folder.")
    parser.add_argument("--data", type=Path, required=True, help="Training texts; not used, nothing is calibrated.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--torchscript", action="store_true")
    said = parser.parse_args()

    exporter = "torchscript_exporter" if said.torchscript else "dynamo_exporter"
    target = ["--device", "cpu", "--provider", "CPUExecutionProvider", "--precision", "fp32", "--exporter", exporter]
    with TemporaryDirectory() as folder:
        fused = f"{folder}/fused"
        olive(["optimize", "-m", str(said.model), "-t", "text-classification", *target, "-o", fused])
        olive(["quantize", "-m", fused, "--implementation", "ort", "--precision", "int8", "-o", str(said.out)])

    from transformers import AutoConfig, AutoTokenizer

    AutoConfig.from_pretrained(said.model).save_pretrained(said.out)
    AutoTokenizer.from_pretrained(said.model).save_pretrained(said.out)


if __name__ == "__main__":
    main()
