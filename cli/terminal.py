"""Says in the terminal what a Report says in full on its page: six rows, the verdict and two paths.

Stands apart from the commands, so that `build` and `bench` end alike. Letters are ASCII but for what the
user wrote: a pipe or an old console may take nothing else. Must not import jinja2 or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgetune.benchmarks.report import charts
from edgetune.serve.report import Pair, Report

Row = tuple[str, str, str, str]  # what, base, bundle, how the bundle differs


def figures_table(report: Report) -> Table:
    """The main figures of `report`: one row each for base, bundle and how the bundle differs."""
    return table_of((_quality(report), *_latency(report), *_footprint(report)))


def table_of(rows: Iterable[Row]) -> Table:
    """A table of such rows in ASCII letters, the way every report ends in the terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="bold")
    table.add_column("")
    for heading in ("base (PyTorch)", "bundle", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_plain(cell)) for cell in row))
    return table


def print_report(report: Report, bundle: str, html: str, console: Console) -> None:
    """Print the table, the verdict and where the bundle and its report lie.

    Args:
        report: what was measured.
        bundle: path of the bundle as the user would type it.
        html: path of the page.
        console: where to print; a path is never wrapped, so that it can be copied.
    """
    print_outcome(figures_table(report), (report.verdict, report.timing_remark, report.why), bundle, html, console)


def print_outcome(table: Table, sentences: Sequence[str], bundle: str, html: str, console: Console) -> None:
    """Print a table, the verdict in bold with what follows it, and both paths."""
    console.print(table)
    console.print()
    for place, sentence in enumerate(sentences):
        if sentence:
            console.print(Text(_plain(sentence), style="" if place else "bold"))
    console.print()
    for name, path in (("bundle", bundle), ("report", html)):
        console.print(Text(f"{name}  {path}"), soft_wrap=True)


def _plain(text: str) -> str:
    return text.replace("×", "x").replace("−", "-")


def _quality(report: Report) -> Row:
    metric = report.quality.metric
    base = next((stage.value for stage in report.quality.stages if stage.stage == "base"), None)
    packed = report.packed.value if report.packed else None
    change = ""
    if base is not None and packed is not None:
        unit = " points" if charts.is_percent(metric) else ""
        change = charts.difference(packed - base, metric, signed=True) + unit
    return metric.replace("_", " "), charts.score(base, metric), charts.score(packed, metric), change


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
    return [_row("throughput", throughput, charts.per_second, more), *footprint]


def footprint_rows(memory: Pair, cold_start_ms: Pair | None, size_bytes: Pair, *, timing_valid: bool) -> list[Row]:
    """Peak memory, cold start and size."""
    cold = cold_start_ms or Pair(base=None, bundle=None)
    faster = charts.change(cold, "faster", "slower") if timing_valid else charts.NOT_JUDGED
    return [
        _row("peak memory", memory, charts.size, charts.change(memory, "less", "more")),
        _row("cold start", cold, charts.milliseconds, faster),
        _row("size", size_bytes, charts.size, charts.change(size_bytes, "smaller", "larger")),
    ]


def _row(name: str, pair: Pair, show: Callable[[float | None], str], change: str) -> Row:
    return name, show(pair.base), show(pair.bundle), change
