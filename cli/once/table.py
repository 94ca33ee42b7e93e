"""Prints in the terminal what a Report says in full on its page: a row a figure, the verdict and two paths.

Must not import jinja2 or torch.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from edgetune.benchmarks.report import charts
from edgetune.serve.report import Pair, Report
from edgetune.terminal import Row, footprint_rows, print_outcome, row_of, table_of
from edgetune.tune.metrics import title_of


def figures_table(report: Report) -> Table:
    """The main figures of `report`: one row each for base, bundle and how the bundle differs."""
    return table_of(figure_rows(report))


def figure_rows(report: Report) -> tuple[Row, ...]:
    """The rows of that table."""
    return (*_quality(report), *_latency(report), *_footprint(report))


def print_report(report: Report, bundle: str, html: str, console: Console) -> None:
    """Print the table, the verdict and where the bundle and its report lie.

    Args:
        report: what was measured.
        bundle: path of the bundle as the user would type it.
        html: path of the page.
        console: where to print; a path is never wrapped, so that it can be copied.
    """
    print_outcome(
        figures_table(report),
        (report.verdict, report.timing_remark, report.why, charts.plan_and_truth(report)),
        bundle,
        html,
        console,
    )


def _quality(report: Report) -> list[Row]:
    """The metric that judged, then the task's further figures on the test part."""
    stages = {stage.stage: stage for stage in report.quality.stages}
    base, packed = stages.get("base"), stages.get(report.chosen)
    metric, value = report.quality.metric, report.packed.value if report.packed else None
    further = [
        _quality_row(name, base.metrics.get(name) if base else None, packed.metrics.get(name) if packed else None)
        for name in charts.further_metrics(report)
    ]
    return [_quality_row(metric, base.value if base else None, value), *further]


def _quality_row(metric: str, base: float | None, packed: float | None) -> Row:
    change = ""
    if base is not None and packed is not None:
        change = charts.difference(packed - base, metric, signed=True) + charts.loss_unit(metric)
    return title_of(metric), charts.score(base, metric), charts.score(packed, metric), change


def _latency(report: Report) -> list[Row]:
    comparison = report.latency_ms
    if comparison is None:
        return [(f"latency {mark}", charts.NOT_MEASURED, charts.NOT_MEASURED, "") for mark in ("p50", "p90")]
    base, bundle, faster = comparison.base, comparison.bundle, comparison.speedup
    figures = (("p50", base.p50, bundle.p50, faster.p50), ("p90", base.p90, bundle.p90, faster.p90))
    return [
        (
            f"latency {mark}",
            charts.milliseconds(before, charts.TOO_SMALL),
            charts.milliseconds(after, charts.TOO_SMALL),
            charts.times(factor, "faster", "slower") if report.timing_valid else charts.NOT_JUDGED,
        )
        for mark, before, after, factor in figures
    ]


def _footprint(report: Report) -> list[Row]:
    throughput = report.throughput_per_second or Pair(base=None, bundle=None)
    more = charts.change(throughput, "more", "fewer", more_is_better=True)
    if not report.timing_valid:
        more = charts.NOT_JUDGED
    footprint = footprint_rows(
        charts.peak_memory(report), report.cold_start_ms, report.size_bytes, timing_valid=report.timing_valid
    )
    return [row_of("throughput", throughput, charts.per_second, more), *footprint]
