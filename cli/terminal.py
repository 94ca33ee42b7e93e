"""How every build ends in the terminal: a table of base against bundle, the verdict and two paths.

Each family has its own rows (cli/once/table.py, cli/stepwise/table.py). Letters are ASCII but for what the user wrote:
a pipe or an old console may take nothing else. Must not import jinja2 or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgetune.benchmarks.report import charts
from edgetune.escaping import escaped, message
from edgetune.serve.report import Pair

Row = tuple[str, str, str, str]  # what, base, bundle, how the bundle differs


def table_of(rows: Iterable[Row]) -> Table:
    """A table of such rows in ASCII letters, the way every report ends in the terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="bold")
    table.add_column("")
    for heading in ("base (PyTorch)", "bundle", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_plain(cell)) for cell in row))
    return table


def print_outcome(table: Table, sentences: Sequence[str], bundle: str, html: str, console: Console) -> None:
    """Print a table, the verdict in bold with what follows it, and both paths."""
    console.print(table)
    console.print()
    for number, sentence in enumerate(sentences):
        if sentence:
            console.print(Text(_plain(sentence), style="" if number else "bold"))
    console.print()
    for name, path in (("bundle", bundle), ("report", html)):
        console.print(Text(f"{name}  {escaped(path)}"), soft_wrap=True)


def _plain(text: str) -> str:
    return message(text.replace("×", "x").replace("−", "-"))


def footprint_rows(memory: Pair, cold_start_ms: Pair | None, size_bytes: Pair, *, timing_valid: bool) -> list[Row]:
    """Peak memory, cold start and size."""
    cold = cold_start_ms or Pair(base=None, bundle=None)
    faster = charts.change(cold, "faster", "slower") if timing_valid else charts.NOT_JUDGED
    return [
        row_of("peak memory", memory, charts.size, charts.change(memory, "less", "more")),
        row_of("cold start", cold, charts.milliseconds, faster),
        row_of("size", size_bytes, charts.size, charts.change(size_bytes, "smaller", "larger")),
    ]


def row_of(name: str, pair: Pair, show: Callable[[float | None], str], change: str) -> Row:
    """A row of one figure of both."""
    return name, show(pair.base), show(pair.bundle), change
