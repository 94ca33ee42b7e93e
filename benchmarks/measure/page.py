"""One HTML page of a bundle on all machines that it was measured on, the one that built it first.

Without jinja2, which the floor has not. Nothing is fetched, and no script runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from edgetune.benchmarks.measure.figures import MachineFigures, of_measurement, of_report, rows
from edgetune.benchmarks.measure.measurement import Measurement
from edgetune.benchmarks.report import charts
from edgetune.benchmarks.report.summary import metric_of
from edgetune.serve.report import BuildReport

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top }}
th:first-child, td:first-child {{ text-align: left }}
section {{ border-top: 2px solid #888; margin-top: 2rem }}
small, .remark {{ color: #555 }}
.wide {{ overflow-x: auto }}
{style}</style></head>
<body>
<h1>{title}</h1>
{body}
</body></html>
"""


def measured_page(measurements: Sequence[Measurement], report: BuildReport | None) -> str:
    """The page of a bundle's measurements, with its report's figures beside them where it has one."""
    name = measurements[0].bundle.name if measurements else (report.name if report else "")
    columns = [*([of_report(report)] if report else []), *map(of_measurement, measurements)]
    parts = [_introduction(report), _side_by_side(columns), *_remarks(columns)]
    parts += [_section(measurement) for measurement in measurements]
    return PAGE.format(style="", title=escape(f"{name} where it runs"), body="\n".join(parts))


def _introduction(report: BuildReport | None) -> str:
    if report is None:
        return ""
    name, value, loss, more = metric_of(report)
    lost = "" if loss is None else f", {'drop' if more else 'rise'} against the tuned model {loss:.4g}"
    decision = "".join(f"<p>{escape(line)}</p>" for line in report.decision.lines) if report.decision else ""
    return f"{decision}<p>{escape(report.verdict)}</p><p>{escape(name)} of what was packed {value:.4f}{lost}.</p>"


def _side_by_side(columns: Sequence[MachineFigures]) -> str:
    """A row for each figure, a column for each machine."""
    by_machine = [dict(rows(figures)) for figures in columns]
    names = list(dict.fromkeys(name for values in by_machine for name in values))
    cells = [[name, *(values.get(name, "") for values in by_machine)] for name in names]
    return table(["", *(figures.title for figures in columns)], cells)


def _remarks(columns: Iterable[MachineFigures]) -> list[str]:
    return [
        f'<p class="remark"><strong>{escape(figures.title)}</strong>: {escape(figures.timing_remark)}</p>'
        for figures in columns
        if figures.timing_remark
    ]


def _section(measurement: Measurement) -> str:
    """What one machine showed beyond the common figures."""
    machine, bundle = measurement.machine, measurement.bundle
    facts = [
        ("measured", f"{measurement.created} by edgetune {measurement.edgetune}, in {measurement.seconds:.0f} s"),
        ("system", f"{machine.os}; {', '.join(machine.isa) or 'instruction sets unknown'}"),
        ("ran", f"{', '.join(measurement.providers)}: {bundle.reason or bundle.variant}"),
        ("inputs", f"{measurement.inputs.n:,}: {measurement.inputs.remark}"),
        ("other programs took", _cores(measurement.others_cores)),
        *(
            (f"golden answers of {name}", golden_line(replay.cases, replay.max_abs_diff, replay.tolerance))
            for name, replay in measurement.golden.items()
        ),
    ]
    parts = [f"<section><h2>{escape(machine.cpu)}</h2>", table(["", ""], [list(fact) for fact in facts])]
    if measurement.settings:
        cells = [
            [str(entry.threads), "yes" if entry.spinning else "no", charts.milliseconds(entry.p50_ms)]
            for entry in measurement.settings
        ]
        parts.append(table(["threads", "spinning", "median"], cells))
    if measurement.first_token_ms:
        cells = [[f"{entry.prompt_tokens:,}", charts.milliseconds(entry.ms)] for entry in measurement.first_token_ms]
        parts.append(table(["prompt tokens", "first token"], cells))
    if measurement.drift:
        parts.append(f"<p>{escape(drift_line(measurement))}</p>")
    return "".join([*parts, "</section>"])


def golden_line(cases: int, difference: float, tolerance: float) -> str:
    """How golden answers came out, in words."""
    return f"{cases} replayed, logits within {difference:.2g} (allowed {tolerance:.2g})"


def drift_line(measurement: Measurement) -> str:
    """How times changed in calls without a pause, in a sentence; "" where that was not measured."""
    drift = measurement.drift
    if drift is None:
        return ""
    warmth, clock = (drift.celsius_before, drift.celsius_after), (drift.mhz_before, drift.mhz_after)
    warm = "" if None in warmth else f", {warmth[0]:.0f} to {warmth[1]:.0f} °C"
    clocked = "" if None in clock else f", {clock[0]:,.0f} to {clock[1]:,.0f} MHz"
    return (
        f"{drift.seconds:.0f} s without a pause: {charts.milliseconds(drift.first_ms)} at first, "
        f"{charts.milliseconds(drift.last_ms)} at the end{warm}{clocked}."
    )


def _cores(others: float | None) -> str:
    return charts.NOT_MEASURED if others is None else f"{others:.1f} cores"


def table(heading: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table of texts, which are escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heading)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
