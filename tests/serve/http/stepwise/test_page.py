"""The page for people tells of a language model what its build measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from edgetune.export.once.pack import write_manifest
from edgetune.serve.bundle import Bundle

REPORT = Path(__file__).parents[3] / "benchmarks" / "stepwise" / "sample_report.json"


def test_home_shows_a_language_model_with_its_own_figures(run_server, tiny_bundle, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_bundle, folder)
    shutil.copyfile(REPORT, folder / "report.json")
    write_manifest(folder, Bundle.open(folder).manifest)
    page = run_server({"tiny": folder}).get("/").text
    report = json.loads(REPORT.read_text())
    alone = next(one for one in report["decoding"] if one["batch"] == 1)
    for words in (
        "text-generation", "256 tokens", "fp32", "CPUExecutionProvider", report["quality"]["metric"],
        f"{alone['bundle_per_second']:.0f}, base model {alone['base_per_second']:.0f}", report["machine"]["cpu"],
        "/v1/chat/completions", "&quot;messages&quot;",
    ):  # fmt: skip
        assert words in page, words
    assert "labels" not in page
    assert "/v1/classify" not in page
