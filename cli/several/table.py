"""Prints in the terminal what a report of several tasks says: figures of each task, then those of the one bundle."""

from __future__ import annotations

from rich.console import Console

from edgetune import terminal
from edgetune.benchmarks.report import charts
from edgetune.once.table import latency_rows, quality_rows, throughput_row
from edgetune.serve.tasks_report import TasksReport
from edgetune.terminal import Row, footprint_rows


def figure_rows(report: TasksReport) -> tuple[Row, ...]:
    """The rows of the table: a figure of base, bundle and how the bundle differs, those of a task under its name."""
    rows: list[Row] = []
    for task, one in report.tasks.items():
        rows.append((f"{task}:", "", "", ""))
        rows += [(f"  {name}", *cells) for name, *cells in quality_rows(one)]  # type: ignore[misc]
    return (*rows, *latency_rows(report), throughput_row(report), *footprint_rows(report))


def print_report(report: TasksReport, bundle: str, html: str, console: Console) -> None:
    """Print the table, the verdict and where the bundle and its report lie; see `terminal.print_report`."""
    remarks = (*report.notes, report.why, charts.plan_and_truth(report))
    terminal.print_report(report, figure_rows(report), remarks, bundle, html, console)
