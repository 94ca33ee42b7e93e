"""How every build ends in the terminal: a table of base against bundle, the verdict and two paths.

Each family has its own rows (cli/once/table.py, cli/stepwise/table.py). Letters are ASCII but for what the user wrote:
a pipe or an old console may take nothing else. Must not import jinja2 or torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from edgetune.benchmarks.report import charts
from edgetune.escaping import escaped, message
from edgetune.serve.report import BuildReport, Pair

Row = tuple[str, str, str, str]  # what, base, bundle, how the bundle differs
HEADINGS: Row = ("", "base (PyTorch)", "bundle", "change")


def print_report(
    report: BuildReport, rows: Iterable[Row], remarks: Sequence[str], bundle: str, html: str, console: Console
) -> None:
    """Print the table, the verdict in bold with the family's remarks, and where the bundle and its report lie.

    Args:
        report: what was measured.
        rows: of the table.
        remarks: sentences that follow the verdict; empty ones are left out.
        bundle: path of the bundle as the user would type it.
        html: path of the page.
        console: where to print; a path is never wrapped, so that it can be copied.
    """
    for number, line in enumerate(_lines(rows, console.width)):
        console.print(Text(line, style="" if number else "bold"), soft_wrap=True)
    console.print()
    console.print(Text(_plain(report.verdict), style="bold"))
    for sentence in filter(None, (report.timing_remark, *remarks)):
        console.print(Text(_plain(sentence)))
    console.print()
    for name, path in (("bundle", bundle), ("report", html)):
        console.print(Text(f"{name}  {escaped(path)}"), soft_wrap=True)


def _lines(rows: Iterable[Row], width: int) -> list[str]:
    """The table's heading and rows, the figures at the right of their columns; wider than `width` rather than cut."""
    cells = [HEADINGS, *(tuple(map(_plain, row)) for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    gap = " " * next((size for size in (4, 3, 2) if sum(widths) + 3 * size <= width), 2)
    return [
        gap.join([set_cell_size(row[0], widths[0]), *(_right(*cell) for cell in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]


def _right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text


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
