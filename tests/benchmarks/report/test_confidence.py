"""What a report says of confidence: sentences, plots by known positions, and their place on the page."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from edgetune.benchmarks.report import confidence
from edgetune.benchmarks.report.html import render_html
from edgetune.serve.report import Report
from edgetune.serve.report_confidence import (
    Abstention,
    AnsweredRows,
    Calibration,
    CalibrationFigures,
    OutOfScopeAnswers,
    ReliabilityBin,
    RiskPoint,
)

SAMPLE = Path(__file__).parent.parent / "sample_report.json"


def figures(ece: float) -> CalibrationFigures:
    return CalibrationFigures(ece_equal_mass=ece, ece_equal_width=ece, nll=0.3, brier=0.1)


CALIBRATION = Calibration(
    temperature=1.34,
    remark="Fitted on 1,000 validation rows.",
    fitted_rows=1000,
    n=3080,
    before=figures(0.0208),
    after=figures(0.0104),
    ece_by_chance=0.0092,
    bins_before=[ReliabilityBin(n=10, confidence=0.75, right=0.5)],
    bins=[ReliabilityBin(n=10, confidence=0.5, right=0.5)],
)
TEST = AnsweredRows(
    n=100, answered=80, wrong=4, coverage=0.8, coverage_ci95=[0.7, 0.87], error=0.05, error_ci95=[0.014, 0.123]
)
OUTSIDE = OutOfScopeAnswers(source="o.txt", chosen_on=50, n=50, unsure=0.9, unsure_ci95=[0.8, 0.97], auroc=0.98765)
ABSTENTION = Abstention(
    abstain_below=0.62,
    chosen_by="max_error",
    max_error=0.06,
    met=True,
    remark="At most 0.06 are wrong.",
    validation=TEST,
    test=TEST,
    curve=[RiskPoint(threshold=0.9, coverage=0.5, error=0.0), RiskPoint(threshold=0.2, coverage=1.0, error=0.1)],
    out_of_scope=OUTSIDE,
)


@pytest.fixture(scope="module")
def report() -> Report:
    return msgspec.structs.replace(Report.load(SAMPLE), calibration=CALIBRATION, abstention=ABSTENTION)


def test_sentences(report):
    assert confidence.confidence_sentences(report) == [
        "Calibration: probabilities lie 1.0% from the share of right answers, 2.1% before temperature 1.34; 0.9% would "
        "be chance (ECE, 3,080 test rows).",
        "Unsure below 0.62: 80.0% of 100 test rows are answered, 5.0% of those wrongly (95% interval 1.4% to 12.3%).",
        "Out of scope: 90.0% of 50 texts are unsure, as they should be; AUROC of the best probability 0.988.",
    ]
    assert confidence.confidence_sentences(Report.load(SAMPLE)) == []


def test_sentences_where_nothing_is_unsure_or_nothing_answered():
    alone = msgspec.structs.replace(CALIBRATION, temperature=1.0)
    assert "before temperature" not in confidence.calibration_sentence(alone)
    outside = msgspec.structs.replace(OUTSIDE, unsure=None, unsure_ci95=None)
    told = confidence.outside_sentence(msgspec.structs.replace(ABSTENTION, out_of_scope=outside))
    assert told.endswith("nothing is unsure, so each gets a label.")
    alike = msgspec.structs.replace(OUTSIDE, auroc=0.61)
    told = confidence.outside_sentence(msgspec.structs.replace(ABSTENTION, out_of_scope=alike))
    assert told.endswith("0.610, which hardly tells them from texts of the classes: a class of such texts would.")
    nothing = msgspec.structs.replace(TEST, answered=0, wrong=0, coverage=0.0, error=None, error_ci95=None)
    told = confidence.abstention_sentence(msgspec.structs.replace(ABSTENTION, test=nothing))
    assert told == "Unsure below 0.62: 0% of 100 test rows are answered."


def dots(picture: str) -> list[tuple[float, float, str]]:
    found = re.findall(r'<circle cx="([\d.]+)%" cy="([\d.]+)" r="[\d.]+" class="dot (\w+)"/>', picture)
    return [(float(x), float(y), css) for x, y, css in found]


def test_a_bin_stands_where_its_shares_say():
    middle, level = (9 + 97) / 2, (14 + 206) / 2
    assert dots(confidence.reliability_plot(CALIBRATION)) == [(75.0, level, "base"), (middle, level, "bundle")]
    alone = msgspec.structs.replace(CALIBRATION, temperature=1.0)
    assert dots(confidence.reliability_plot(alone)) == [(middle, level, "bundle")]


def test_the_curve_and_the_bundle_on_it():
    picture = confidence.risk_plot(ABSTENTION.curve, TEST, 0.06)
    ((x, y, css),) = dots(picture)
    # 80% of 9 to 97, and 0.05 of the axis that ends at 1.1 times 0.1.
    assert (x, css) == (pytest.approx(79.4), "bundle")
    assert y == pytest.approx(206 - 192 * 0.05 / 0.11, abs=0.01)
    assert 'class="guide"' in picture
    assert picture.count("mark base") == 1
    assert 'class="guide"' not in confidence.risk_plot(ABSTENTION.curve, TEST, None)


def test_the_page(report, read_page):
    page = read_page(render_html(report))
    assert "confidence" in page.ids
    assert "Unsure below 0.62: 80.0% of 100 test rows are answered" in page.text
    assert "dashed line answer.max_error" in page.text
    assert "not met" not in page.text
    unmet = msgspec.structs.replace(ABSTENTION, met=False, remark="No <threshold> keeps it.")
    page = read_page(render_html(msgspec.structs.replace(report, abstention=unmet)))
    assert "answer.max_error is not met. No <threshold> keeps it." in page.text
    page = read_page(render_html(msgspec.structs.replace(report, abstention=None)))
    assert "Right answers against probability" in page.text
    assert "Wrong answers against rows answered" not in page.text
    assert "confidence" not in read_page(render_html(Report.load(SAMPLE))).ids
