"""A whole build whose rows tell nothing of their class: the constant answer that comes of it is said everywhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from edgetune.benchmarks.report.html import render_html
from edgetune.once.table import figure_rows, print_report
from edgetune.pipeline import build
from edgetune.progress import StageLines
from edgetune.recipe import read_recipe
from edgetune.serve.loading import load
from edgetune.serve.report import Report
from tests.untimed import untimed

pytestmark = pytest.mark.slow  # a whole build

WARNING = (
    "It answers 'ham' to all 60 rows, of which 3 are something else. By accuracy it is no better than one constant "
    "answer, 'ham': 95.00% accuracy against 95.00% accuracy."
)


@pytest.fixture(scope="module")
def workshop(tiny_base, tmp_path_factory) -> Path:
    """A build of 400 texts that are all the same to the base, one unknown token each, 20 of them spam."""
    folder = tmp_path_factory.mktemp("constant")
    rows = [{"text": chr(0x4E00 + row), "label": "spam" if row % 20 == 0 else "ham"} for row in range(400)]
    values = {
        "base": str(tiny_base("bert")),
        "data": rows_file(folder, rows),
        "tune": {"method": "probe"},
        "compress": {"schemes": ["fused"]},
        "out": str(folder / "bundle"),
    }
    recipe, _ = read_recipe(None, values)
    with untimed(), (folder / "lines.txt").open("w", encoding="utf-8") as stream:
        build(recipe, StageLines(Console(file=stream, width=400)))
    answers = load(folder / "bundle").predict(["\u4e00", "\u4e05"])
    assert [answer.label for answer in answers] == ["ham", "ham"]
    return folder


@pytest.fixture(scope="module")
def report(workshop) -> Report:
    return Report.load(workshop / "bundle" / "report.json")


def rows_file(folder, rows) -> dict[str, str]:
    import json

    path = folder / "mail.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"path": str(path), "text": "text", "label": "label"}


def test_the_report_holds_the_constant_beside_each_figure(report):
    quality = report.quality
    assert (report.packed.value, report.packed.gate, quality.n) == (pytest.approx(0.95), "pass", 60)
    assert quality.baseline.answer == "'ham'"
    macro = (2 * 57 / (57 + 60) + 0) / 2
    assert quality.baseline.metrics == {
        "accuracy": pytest.approx(0.95),
        "macro_f1": pytest.approx(macro),
        "balanced_accuracy": pytest.approx(0.5),
    }
    assert report.stage(report.chosen).metrics == {
        "macro_f1": pytest.approx(macro),
        "balanced_accuracy": pytest.approx(0.5),
    }
    assert quality.warning == WARNING
    majority, linear = quality.floor
    assert (majority.value, majority.described) == (pytest.approx(0.95), "'ham' to all rows")
    assert linear.stage == "linear"
    decision = report.decision
    assert (decision.ship, decision.reasons[0].rule) == ("no", "constant")
    assert decision.sentence.startswith("Do not ship, because one constant answer is as good: accuracy 95.00% against")
    assert report.verdict.endswith(f" Warning: {WARNING}")
    assert "and one constant answer, 'ham', 95.00% accuracy: " in report.verdict


def test_the_build_warns_before_it_compresses(workshop):
    """What the tuned model does on the validation part is known before minutes are spent on it."""
    lines = (workshop / "lines.txt").read_text(encoding="utf-8")
    said = "warning, of the tuned model on the validation part: It answers 'ham' to all 60 rows, of which 3 are"
    assert lines.index(said) < lines.index("fused: trying")


def test_uneven_classes_are_judged_by_macro_f1_too(report):
    assert report.gate["second_metric"] == "macro_f1"
    for judged in (report.proof, *report.candidates):
        assert judged.second.metric == "macro_f1"
        assert judged.reason == "the same answers as the tuned model on every row"  # by either metric


def test_terminal_and_page_say_it(report):
    cells = {name: bundle for name, _, bundle, _ in figure_rows(report)}
    assert cells["accuracy"] == "95.00% (constant 95.00%)"
    assert cells["balanced accuracy"] == "50.00% (constant 50.00%)"
    assert cells["macro f1"] == "0.4872 (constant 0.4872)"
    stream = io.StringIO()
    print_report(report, "bundle", "bundle/report.html", Console(file=stream, width=80))
    lines = stream.getvalue().split("\n")
    assert all(len(line) <= 80 for line in lines)
    words = " ".join(stream.getvalue().split())
    assert WARNING in words
    assert words.startswith("Do not ship, because: - one constant answer is as good: accuracy 95.00% against 95.00%, ")
    assert "Constant: of one answer to all rows, 'ham'." in words
    assert "Linear: a linear model of " in words
    page = render_html(report)
    assert '<p class="verdict stop">Do not ship, because:</p>' in page
    assert "These answers may be worth nothing." in page
    assert "constant answer 95.0%" in page
    assert "second metric macro f1" in page
