"""What a small real model learnt, told from its report: every figure of the page is one of the report's."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.lab.language.real_model import MARKERS, SETS, main, page
from benchmarks.lab.language.written_stories import story, write_stories
from edgetune.serve.stepwise.report import LanguageReport

SAMPLE = Path(__file__).parents[2] / "stepwise" / "sample_report.json"


@pytest.fixture
def report() -> LanguageReport:
    return LanguageReport.load(SAMPLE)


def test_the_page_tells_what_was_learnt_and_what_few_bits_lost(report: LanguageReport) -> None:
    lines = page({"banking77": report}, "full").splitlines()
    assert (lines[0], lines[-1]) == (MARKERS.start, MARKERS.end)
    assert any("tuned with `full`" in line for line in lines)
    base, bundle = report.size_bytes.base, report.size_bytes.bundle
    assert base is not None
    assert bundle is not None
    assert (
        f"| banking77 | {SETS['banking77'].what} | 8,000 / 500 / 500 | 9.91 | 4.48 | 48.7% | 63.1% | "
        f"int4_head8, {base / bundle:.1f} times smaller |"
    ) in lines
    assert [line for line in lines if line.startswith("| banking77 | int")] == [
        "| banking77 | int4 | 91.2% | 0.0310 | +3.6% | 38.90 | fail |",
        "| banking77 | int4_head8 | 95.5% | 0.0081 | +0.8% | 43.10 | pass |",
        "| banking77 | int8 | 99.4% | 0.0002 | +0.0% | 71.20 | inconclusive |",
    ]


def test_bundles_that_were_built_already_are_told_without_building(tmp_path: Path) -> None:
    for name in SETS:
        (tmp_path / "out" / f"stories-{name}").mkdir(parents=True)
        (tmp_path / "out" / f"stories-{name}" / "report.json").write_bytes(SAMPLE.read_bytes())
    document = tmp_path / "page.md"
    document.write_text(f"# Ours\n\n{MARKERS.start}\nold\n{MARKERS.end}\n\nAfter.\n", "utf-8")
    said = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--no-build", "--markdown", str(document)]
    ended = CliRunner().invoke(main, said)
    assert (ended.exit_code, ended.output) == (0, "")
    written = document.read_text("utf-8")
    assert written.startswith("# Ours\n\n")
    assert written.endswith("\nAfter.\n")
    assert "old" not in written
    assert all(f"| {name} | {rows.what} |" in written for name, rows in SETS.items())


def test_stories_are_different_and_the_same_for_a_seed(tmp_path: Path) -> None:
    write_stories(tmp_path / "a.jsonl", 300, seed=1)
    write_stories(tmp_path / "b.jsonl", 300, seed=1)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    texts = [json.loads(line)["text"] for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    assert len(set(texts)) == len(texts) == 300
    told = story(random.Random(3))
    assert told.startswith("Once upon a time, there was a little ")
    # What was found, and by whom, comes back.
    name, thing = told.split(" named ")[1].split(".")[0], told.split(" found a ")[1].split(" near")[0]
    assert f"and {name} played with the {thing} all day" in told
