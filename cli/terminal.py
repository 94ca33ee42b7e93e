"""How every build ends in the terminal: whether to ship it, a table of base against bundle, and two paths.

Each family has its own rows (cli/once/table.py, cli/stepwise/table.py). Letters are ASCII but for what the user wrote:
a pipe or an old console may take nothing else. Must not import jinja2 or torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgetune.benchmarks.report import charts
from edgetune.escaping import escaped, message
from edgetune.serve.report import BuildReport, Pair

Row = tuple[str, str, str, str]  # what, base, bundle, how the bundle differs


def print_report(
    report: BuildReport, rows: Iterable[Row], remarks: Sequence[str], bundle: str, html: str, console: Console
) -> None:
    """Print the decision, the table, the outcome in bold with the family's remarks, and where bundle and report lie.

    Args:
        report: what was measured.
        rows: of the table.
        remarks: sentences that follow the verdict; empty ones are left out.
        bundle: path of the bundle as the user would type it.
        html: path of the page.
        console: where to print; a path is never wrapped, so that it can be copied.
    """
    if report.decision:
        for number, line in enumerate(report.decision.lines):
            console.print(Text(_plain(line), style="" if number else "bold"))
        console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="bold")
    table.add_column("")
    for heading in ("base (PyTorch)", "bundle", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_plain(cell)) for cell in row))
    console.print(table)
    console.print()
    console.print(Text(_plain(report.verdict), style="bold"))
    for sentence in filter(None, (report.timing_remark, *remarks)):
        console.print(Text(_plain(sentence)))
    console.print()
    for name, path in (("bundle", bundle), ("report", html)):
        console.print(Text(f"{name}  {escaped(path)}"), soft_wrap=True)


def _plain(text: str) -> str:
    return message(text.replace("×", "x").replace("−", "-"))


def footprint_rows(report: BuildReport) -> list[Row]:
    """Peak memory, cold start and size."""
    memory, size, cold = report.peak_memory, report.size_bytes, report.cold_start_ms or Pair(base=None, bundle=None)
    return [
        ("peak memory", charts.size(memory.base), charts.size(memory.bundle), charts.change(memory, "less", "more")),
        timed_row(report, "cold start", cold.base, cold.bundle),
        ("size", charts.size(size.base), charts.size(size.bundle), charts.change(size, "smaller", "larger")),
    ]


def timed_row(
    report: BuildReport, name: str, base: float | None, bundle: float | None, absent: str = charts.NOT_MEASURED
) -> Row:
    """A row of one time in ms of both, with `absent` where there is none."""
    faster = (
        charts.times(charts.speedup(base, bundle), "faster", "slower") if report.timing_valid else charts.NOT_JUDGED
    )
    return name, charts.milliseconds(base, absent), charts.milliseconds(bundle, absent), faster
