"""A packed cascade in a sentence and a table: who answers what, and what another share would give."""

from __future__ import annotations

from edgetune.benchmarks.report import charts
from edgetune.serve.report import Report


def cascade_sentence(report: Report) -> str:
    """How much the small model answers of the test rows, and what either model alone would give; "" without one."""
    cascade, metric = report.cascade, report.quality.metric
    if cascade is None:
        return ""
    whole, small, strong = (
        charts.score(value, metric) for value in (cascade.value, cascade.small_value, cascade.strong_value)
    )
    return (
        f"Cascade: {cascade.small} answers {charts.share(cascade.share)} of the test rows, wherever its margin is "
        f"{cascade.threshold:.3f} or more, and {cascade.strong} the rest: {whole} together, {strong} by "
        f"{cascade.strong} alone, {small} by {cascade.small} alone."
    )


def cascade_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """(share, quality, mean, p50) of every tenth of the test rows that the small model might answer."""
    if report.cascade is None:
        return []
    return [
        (
            charts.share(point.share),
            charts.score(point.value, report.quality.metric),
            charts.milliseconds(point.mean_ms),
            charts.milliseconds(point.p50_ms),
        )
        for point in report.cascade.curve
    ]
