"""Prints in the terminal what a Report says in full on its page: a row a figure, the verdict and two paths.

Must not import jinja2 or torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from edgetune import terminal
from edgetune.benchmarks.report import charts
from edgetune.benchmarks.report.cascades import cascade_sentence
from edgetune.benchmarks.report.confidence import confidence_sentences
from edgetune.serve.report import Pair, Report
from edgetune.serve.verdict import LINEAR
from edgetune.terminal import Row, footprint_rows, timed_row
from edgetune.tune.metrics import is_error, title_of


def figure_rows(report: Report) -> tuple[Row, ...]:
    """The rows of the table: a figure of base, bundle and how the bundle differs."""
    return (*quality_rows(report), *latency_rows(report), throughput_row(report), *footprint_rows(report))


def print_report(report: Report, bundle: str, html: str, console: Console) -> None:
    """Print the table, the verdict and where the bundle and its report lie; see `terminal.print_report`."""
    baseline = report.quality.baseline
    constant = f"Constant: of one answer to all rows, {baseline.answer}." if baseline else ""
    linear = report.floor(LINEAR)
    floor = f"Linear: a linear model of {linear.described} reaches {_value(report, linear.value)}." if linear else ""
    remarks = (
        constant,
        floor,
        report.quality.floor_remark,
        *confidence_sentences(report),
        report.why,
        cascade_sentence(report),
        charts.plan_and_truth(report),
    )
    terminal.print_report(report, figure_rows(report), remarks, bundle, html, console)


def quality_rows(report: Report) -> list[Row]:
    """The metric that judged, then the task's further figures on the test part, each beside a constant answer's."""
    base, packed = report.stage("base"), report.stage(report.chosen)
    value = report.packed.value if report.packed else None
    first = _quality_row(report, report.quality.metric, base.value if base else None, value)
    before, after = (stage.metrics if stage else {} for stage in (base, packed))
    return [
        first,
        *_interval(report),
        *(_quality_row(report, name, before.get(name), after.get(name)) for name in report.further_metrics),
    ]


def _interval(report: Report) -> list[Row]:
    """The 95% intervals of both values of the metric, and the paired one of what lies between them."""
    metric, stages = report.quality.metric, (report.stage("base"), report.stage(report.chosen))
    before, after = ("" if stage is None or len(stage.ci95) != 2 else _bounds(stage.ci95, metric) for stage in stages)
    pair = report.comparison("base", report.chosen)
    sign = 1 if is_error(metric) else -1
    moved = sorted(sign * bound for bound in pair.drop_interval) if pair else []
    change = " to ".join(charts.loss(bound, metric, signed=True) for bound in moved)
    return [("  95% interval", before, after, change)] if before or after else []


def _bounds(interval: Sequence[float], metric: str) -> str:
    low, high = (charts.score(bound, metric, 1) for bound in interval)
    return f"{low} to {high}"


def _value(report: Report, value: float) -> str:
    return f"{charts.score(value, report.quality.metric)} {title_of(report.quality.metric)}"


def _quality_row(report: Report, metric: str, base: float | None, packed: float | None) -> Row:
    change, constant = "", report.constant(metric)
    if base is not None and packed is not None:
        change = charts.difference(packed - base, metric, signed=True) + charts.loss_unit(metric)
    beside = "" if constant is None else f" (constant {charts.score(constant, metric)})"
    return title_of(metric), charts.score(base, metric), charts.score(packed, metric) + beside, change


def latency_rows(report: Report) -> list[Row]:
    latency = report.latency_ms
    if latency is None:
        return [(f"latency {mark}", charts.NOT_MEASURED, charts.NOT_MEASURED, "") for mark in ("mean", "p50", "p90")]
    base, bundle, absent = latency.base, latency.bundle, charts.TOO_SMALL
    return [
        timed_row(report, "latency mean", base.mean, bundle.mean),
        timed_row(report, "latency p50", base.p50, bundle.p50, absent),
        timed_row(report, "latency p90", base.p90, bundle.p90, absent),
    ]


def throughput_row(report: Report) -> Row:
    rate = report.throughput_per_second or Pair(base=None, bundle=None)
    more = charts.change(rate, "more", "fewer", more_is_better=True) if report.timing_valid else charts.NOT_JUDGED
    return "throughput", charts.per_second(rate.base), charts.per_second(rate.bundle), more
