"""The real all-MiniLM-L6-v2 on the shipped example data: what a user gets, in figures that cannot come by chance."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import onnx
import pytest

from edgetune.serve import load
from tests.untimed import untimed

EXAMPLE = Path(__file__).parents[2] / "examples" / "support_intents.csv"


@pytest.mark.slow
def test_minilm_learns_the_example_and_its_int8_bundle_keeps_the_answers(edgetune, tmp_path):
    with EXAMPLE.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    out = tmp_path / "bundle"
    # One row of 129 is 0.8 points: what a processor's rounding turns in int8 must not decide what is packed.
    settings = ["--set=compress.schemes=[fused,int8_dynamic]", "--set=gate.max_drop=0.05"]
    with untimed():
        ended = edgetune(
            "build", "--base", "all-MiniLM-L6-v2", "--data", EXAMPLE, "--method", "probe", "--out", out, "--json",
            *("--device", "cpu"), *settings,
        )  # fmt: skip
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)["report"]
    assert report["training"]["pooling"] == "mean"  # as 1_Pooling/config.json of the checkpoint says
    stages = {stage["stage"]: stage for stage in report["quality"]["stages"]}
    # Twelve classes: chance is 0.08. The intervals of 129 rows are wide, the bounds are far below what is reached.
    assert stages["tuned"]["value"] > 0.7
    assert stages["onnx"]["agreement"] == 1.0
    assert stages[report["chosen"]]["agreement"] > 0.9
    assert report["chosen"].endswith("int8_dynamic")
    assert report["size_bytes"]["bundle"] < 0.3 * report["size_bytes"]["base"]
    operators = [node.op_type for node in onnx.load(str(out / "model.onnx")).graph.node]
    assert operators.count("QAttention") == 6
    answers = load(out).predict([row["text"] for row in rows])
    right = sum(answer.label == row["intent"] for answer, row in zip(answers, rows, strict=True))
    assert right / len(rows) > 0.8  # most of these it was trained on
