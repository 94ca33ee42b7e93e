"""A comparison as one HTML page that fetches nothing and runs no script, and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgetune.benchmarks.compare.comparison import Compared, points_of
from edgetune.benchmarks.compare.verdict import Gain
from edgetune.benchmarks.measure.page import PAGE, table
from edgetune.benchmarks.report import charts
from edgetune.tune.metrics import is_percent, title_of


def comparison_page(compared: Compared) -> str:
    """The page."""
    parts = [f"<p><strong>{escape(compared.verdict)}</strong></p>"]
    parts.append(f"<p>A is {escape(compared.a)}, B is {escape(compared.b)}; {escape(compared.task)}.</p>")
    parts.append(table(["", "A", "B", "gain", "interval"], [metric_cells(gain) for gain in compared.gains]))
    if facts := fact_cells(compared):
        parts.append(table(["", "A", "B", ""], facts))
    parts += [f'<p class="remark">{escape(finding)}</p>' for finding in remarks(compared)]
    if compared.examples:
        rows = [[one.input, one.expected, one.a, one.b] for one in compared.examples]
        parts += ["<h2>Rows on which they differ</h2>", table(["input", "expected", "A", "B"], rows)]
    return PAGE.format(style="", title=escape("A against B"), body="\n".join(parts))


def metric_cells(gain: Gain) -> list[str]:
    """A metric's row of the table: name, both values, the gain and its interval."""

    def value(number: float) -> str:
        return f"{100 * number:.2f}%" if is_percent(gain.metric) else f"{number:.4g}"

    low, high = (f"{100 * end:+.2f}" for end in gain.gain_ci)
    return [
        title_of(gain.metric),
        value(gain.a),
        value(gain.b),
        f"{100 * gain.gain:+.2f} {points_of(gain.metric)}",
        f"{low} to {high}",
    ]


def fact_cells(compared: Compared) -> list[list[str]]:
    """Rows of the second table: size and speed, as far as they are known."""
    sizes = [
        charts.NOT_MEASURED if size is None else f"{size / 1e6:.1f} MB" for size in (compared.a_bytes, compared.b_bytes)
    ]
    rows = [["size", *sizes, ""]]
    if (speed := compared.speed) is not None:
        interval = speed.times_as_fast_ci95
        shown = f"{speed.times_as_fast:.2f} times" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")
        rows.append(
            [
                "median call",
                charts.milliseconds(speed.a_ms),
                charts.milliseconds(speed.b_ms),
                "" if speed.remark else shown,
            ]
        )
    return rows


def remarks(compared: Compared) -> Sequence[str]:
    """What else there is to say, a sentence each."""
    agreed = [] if compared.agreement is None else [f"They agree on {100 * compared.agreement:.1f}% of the rows."]
    busy = [compared.speed.remark] if compared.speed and compared.speed.remark else []
    return [*agreed, *busy, *compared.findings]
