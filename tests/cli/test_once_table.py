"""The short table: what it says, that it fits in 80 columns, and that a pipe receives plain letters."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from edgetune.once.table import figure_rows, print_report
from edgetune.serve.report import Report
from edgetune.serve.verdict import Comparison, Decision, Reason

SAMPLES = Path(__file__).parent.parent / "benchmarks"
BUNDLE = "/home/somebody/projects/banking/bundles/" + "a-long-name-" * 5


@pytest.fixture(scope="module")
def full() -> Report:
    return Report.load(SAMPLES / "sample_report.json")


@pytest.fixture(scope="module")
def minimal() -> Report:
    return Report.load(SAMPLES / "minimal_report.json")


def printed(report: Report, encoding: str = "ascii", width: int = 80) -> str:
    """What a pipe of `encoding` receives; a letter that it cannot take raises."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    print_report(report, BUNDLE, f"{BUNDLE}/report.html", Console(file=stream, width=width, force_terminal=False))
    stream.flush()
    return raw.getvalue().decode(encoding)


def rows(output: str) -> list[list[str]]:
    """The lines of the table as cells."""
    lines = [line.strip() for line in output.split("\n")]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines if "  " in line]


def test_the_table_has_its_rows(full: Report) -> None:
    assert rows(printed(full))[:10] == [
        ["base (PyTorch)", "bundle", "change"],
        ["accuracy", "92.50%", "92.93%", "+0.43 points"],
        ["95% interval", "91.5% to 93.4%", "92.0% to 93.8%"],
        ["latency mean", "7.26 ms", "1.13 ms", "6.4x faster"],
        ["latency p50", "7.10 ms", "1.10 ms", "6.5x faster"],
        ["latency p90", "8.30 ms", "1.25 ms", "6.6x faster"],
        ["throughput", "370 /s", "1,657 /s", "4.5x more"],
        ["peak memory", "454 MB", "117 MB", "3.9x less"],
        ["cold start", "3,510 ms", "225 ms", "15.6x faster"],
        ["size", "91.7 MB", "23.4 MB", "3.9x smaller"],
    ]


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_a_figure_stands_on_one_line_however_narrow_the_window(full: Report, width: int) -> None:
    named = msgspec.structs.replace(full.quality, metric="balanced_accuracy")
    output = printed(msgspec.structs.replace(full, quality=named), width=width)
    heading, first, *_ = output.splitlines()
    assert first.split() == ["balanced", "accuracy", "92.50%", "92.93%", "+0.43", "points"]
    assert len(heading) == len(first)


def test_verdict_and_whole_paths_follow(full: Report) -> None:
    output = printed(full)
    assert full.verdict in " ".join(output.split())
    assert output.endswith(f"bundle  {BUNDLE}\nreport  {BUNDLE}/report.html\n")


def test_it_fits_in_eighty_columns_without_escape_codes(full: Report, minimal: Report) -> None:
    for report in (full, minimal):
        output = printed(report)
        assert "\x1b" not in output
        assert all(len(line) <= 80 for line in output.split("\n") if BUNDLE not in line)


def test_what_was_not_measured_is_said(minimal: Report) -> None:
    output = printed(minimal)
    assert "None" not in output
    assert rows(output)[1] == ["f1 macro", "not measured", "0.5000"]
    assert ["cold start", "not measured", "not measured"] in rows(output)
    assert ["size", "70.0 kB", "61.0 kB", "1.15x smaller"] in rows(output)


def test_a_null_percentile_is_too_few_samples(full: Report) -> None:
    latency = full.latency_ms
    assert latency is not None
    base = msgspec.structs.replace(latency.base, p90=None)
    speedup = msgspec.structs.replace(latency.speedup, p90=None)
    report = msgspec.structs.replace(full, latency_ms=msgspec.structs.replace(latency, base=base, speedup=speedup))
    assert ["latency p90", "n too small", "1.25 ms"] in rows(printed(report))


def test_a_busy_machine_gives_no_ratio_of_times(full: Report) -> None:
    remark = "The machine was too busy to judge speed: other programs took 1.6 of 2 cores."
    output = printed(msgspec.structs.replace(full, timing_valid=False, timing_remark=remark, verdict="V", why=""))
    assert remark in " ".join(output.split())
    assert "faster" not in output
    unjudged = [row[0] for row in rows(output) if row[-1] == "not judged"]
    assert unjudged == ["latency mean", "latency p50", "latency p90", "throughput", "cold start"]
    assert ["size", "91.7 MB", "23.4 MB", "3.9x smaller"] in rows(output)


def test_a_loss_has_its_sign(full: Report) -> None:
    stages = [msgspec.structs.replace(s, value=0.95) if s.stage == "base" else s for s in full.quality.stages]
    report = msgspec.structs.replace(full, quality=msgspec.structs.replace(full.quality, stages=stages))
    assert rows(printed(report))[1][-1] == "-2.07 points"


def test_brackets_of_a_user_are_no_markup(full: Report) -> None:
    verdict = "[red]kept[/red] [/]"
    assert verdict in printed(msgspec.structs.replace(full, verdict=verdict))


def test_the_decision_stands_above_the_table(full: Report) -> None:
    reasons = [Reason(rule="untimed", sentence="the machine was [busy]")]
    output = printed(msgspec.structs.replace(full, decision=Decision(ship="with care", reasons=reasons)))
    assert output.startswith("Ship with care, because:\n- the machine was [busy]\n\n")
    assert printed(msgspec.structs.replace(full, decision=Decision(ship="yes"))).startswith("Ship\n\n")


def test_the_paired_interval_stands_beside_those_of_both(full: Report) -> None:
    pair = Comparison(
        reference="base", candidate=full.chosen, drop=-0.0043, drop_interval=[-0.011, 0.002], p_value=None
    )
    report = msgspec.structs.replace(full, quality=msgspec.structs.replace(full.quality, comparisons=[pair]))
    assert rows(printed(report))[2] == ["95% interval", "91.5% to 93.4%", "92.0% to 93.8%", "-0.20 to +1.10"]


def test_the_table_alone_has_nine_rows(full: Report) -> None:
    assert len(figure_rows(full)) == 9
