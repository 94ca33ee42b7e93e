"""What a report says of a packed cascade: a sentence, and a row for every share."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgetune.benchmarks.report.cascades import cascade_rows, cascade_sentence
from edgetune.benchmarks.report.html import render_html
from edgetune.serve.report import CascadePoint, CascadeReport, Report

from ..conftest import Page, check

REPORT = Report.load(Path(__file__).parents[1] / "sample_report.json")
CURVE = [
    CascadePoint(share=0.0, threshold=1.0, value=0.93, p50_ms=1.1, mean_ms=1.2),
    CascadePoint(share=0.5, threshold=0.7, value=0.94, p50_ms=None, mean_ms=None),
]
CASCADE = CascadeReport(
    small="static", strong="int8_static", threshold=0.6251, validation_share=0.65, share=0.64,
    value=0.9364, small_value=0.91, strong_value=0.93, curve=CURVE,
)  # fmt: skip


def test_who_answers_what_is_told_with_the_figures_of_each():
    report = msgspec.structs.replace(REPORT, cascade=CASCADE)
    assert cascade_sentence(report) == (
        "Cascade: static answers 64.0% of the test rows, wherever its margin is 0.625 or more, and int8_static the "
        "rest: 93.64% together, 93.00% by int8_static alone, 91.00% by static alone."
    )
    assert cascade_rows(report) == [
        ("0%", "93.00%", "1.20 ms", "1.10 ms"),
        ("50.0%", "94.00%", "not measured", "not measured"),
    ]
    source = render_html(report)
    check(Page(source))
    assert "Who answers what" in source
    assert cascade_sentence(report) in Page(source).text


def test_nothing_is_told_where_one_model_answers():
    assert cascade_sentence(REPORT) == ""
    assert cascade_rows(REPORT) == []
    assert "Who answers what" not in render_html(REPORT)


def test_a_report_with_a_cascade_is_read_again(tmp_path):
    report = msgspec.structs.replace(REPORT, cascade=CASCADE)
    (tmp_path / "report.json").write_bytes(report.to_json())
    assert Report.load(tmp_path / "report.json") == report
