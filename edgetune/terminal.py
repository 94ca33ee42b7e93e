"""Says in the terminal what a Report says in full on its page: six rows, the verdict and two paths.

Stands apart from the commands, so that `build` and `bench` end alike. Letters are ASCII but for what the
user wrote: a pipe or an old console may take nothing else. Must not import jinja2 or torch.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgetune.benchmarks import charts
from edgetune.serve.report import Pair, Report


def figures_table(report: Report) -> Table:
    """The main figures of `report`: one row each for base, bundle and how the bundle differs."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="bold")
    table.add_column("")
    for heading in ("base (PyTorch)", "bundle", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in (_quality(report), *_latency(report), *_footprint(report)):
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
    console.print(figures_table(report))
    console.print()
    console.print(Text(_plain(report.verdict), style="bold"))
    if report.why:
        console.print(Text(_plain(report.why)))
    console.print()
    for name, path in (("bundle", bundle), ("report", html)):
        console.print(Text(f"{name}  {path}"), soft_wrap=True)


def _plain(text: str) -> str:
    return text.replace("×", "x").replace("−", "-")


def _quality(report: Report) -> tuple[str, str, str, str]:
    metric = report.quality.metric
    base = next((stage.value for stage in report.quality.stages if stage.stage == "base"), None)
    packed = report.packed.value if report.packed else None
    change = ""
    if base is not None and packed is not None:
        unit = " points" if charts.is_percent(metric) else ""
        change = charts.difference(packed - base, metric, signed=True) + unit
    return metric.replace("_", " "), charts.score(base, metric), charts.score(packed, metric), change


def _latency(report: Report) -> list[tuple[str, str, str, str]]:
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
            charts.times(factor, "faster", "slower"),
        )
        for mark, before, after, factor in figures
    ]


def _footprint(report: Report) -> list[tuple[str, str, str, str]]:
    none = Pair(base=None, bundle=None)
    throughput, cold = report.throughput_per_second or none, report.cold_start_ms or none
    memory, file_size = charts.peak_memory(report), report.size_bytes
    more = charts.change(throughput, "more", "fewer", more_is_better=True)
    return [
        _row("throughput", throughput, charts.per_second, more),
        _row("peak memory", memory, charts.size, charts.change(memory, "less", "more")),
        _row("cold start", cold, charts.milliseconds, charts.change(cold, "faster", "slower")),
        _row("size", file_size, charts.size, charts.change(file_size, "smaller", "larger")),
    ]


def _row(name: str, pair: Pair, show: Callable[[float | None], str], change: str) -> tuple[str, str, str, str]:
    return name, show(pair.base), show(pair.bundle), change
