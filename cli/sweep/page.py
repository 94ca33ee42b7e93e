"""A sweep as one HTML page: the winner, its test figures, every trial, and which keys mattered.

Nothing is fetched, and no script runs; charts are inline SVG by the axes of the report's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from markupsafe import Markup

from edgetune.benchmarks.measure.page import PAGE
from edgetune.benchmarks.report.charts import Axis, draw, line, seconds, share, share_bar, text_at
from edgetune.sweep.study import ERROR, OWN, has_result
from edgetune.sweep.sweep import Swept, counted_trials, evaluation_words, objective_words, setting_words, value_word

_STYLE = """.winner td { background: #e7f3ee }
.share { width: 16rem }
svg text { font: 12px system-ui, sans-serif; fill: #555 }
.rail { fill: #eee } .area { fill: #1f7a5c } .grid { stroke: #e5e5e5 }
.best { stroke: #1f7a5c; stroke-width: 2 }
.dot { fill: #8a8a8a } .dot.winner { fill: #1f7a5c }
"""
_HEIGHT, _TOP, _BOTTOM = 230, 14, 196


def sweep_page(swept: Swept) -> str:
    """The page of a sweep."""
    name = escape(swept.recipe.out)
    parts = [_introduction(swept), _history(swept), _importance(swept), _trials(swept), _space(swept)]
    return PAGE.format(style=_STYLE, title=f"Sweep of {name}", body="\n".join(parts))


def summary_lines(swept: Swept) -> list[str]:
    """The winner, what its value is worth, and its test figures, as sentences."""
    words = ", ".join(objective_words(swept.winner.values, swept.objectives))
    lines = [f"Trial {swept.winner.number} won with {words} on the validation part: {setting_words(swept.winner)}."]
    lines.append(swept.caution)
    if (test := swept.test) is not None:
        low, high = test.interval
        said = f"On the {test.rows:,} test rows it has {swept.metric.name} {test.value:.4f} ({low:.4f} to {high:.4f})."
        if test.gain is not None and test.own_value is not None:
            told = "more than chance" if test.gain.is_significant else "no more than chance may give"
            said = (
                f"{said[:-1]}, by the recipe's own values {test.own_value:.4f}: a gain of {test.gain.value:+.4f}, "
                f"standard error {test.gain.error:.4f}, {told}."
            )
        lines.append(said)
    return lines


def _introduction(swept: Swept) -> str:
    lines = [f"<p>{escape(text)}</p>" for text in summary_lines(swept)]
    return "\n".join([f"<p>{counted_trials(len(swept.trials))}.</p>", *lines])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[bool] = ()) -> str:
    """Cells are HTML already."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    opened = ['<tr class="winner">' if flag else "<tr>" for flag in marked or [False] * len(rows)]
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    body = "\n".join(f"{start}{line}</tr>" for start, line in zip(opened, lines, strict=True))
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _trials(swept: Swept) -> str:
    keys = [dimension.key for dimension in swept.space]
    rows = []
    for trial in swept.trials:
        settings = trial.user_attrs.get("settings", {})
        if has_result(trial):
            result, note = objective_words(trial.values, swept.objectives), ""
        else:
            result = [""] * len(swept.objectives)
            note = trial.user_attrs.get(ERROR, f"pruned after {evaluation_words(trial)}")
        notes = [
            *(["the recipe's own values"] if OWN in trial.user_attrs else []),
            *(["on the front"] if trial.number in swept.front and len(swept.objectives) > 1 else []),
            *([note] if note else []),
        ]
        values = [escape(value_word(settings[key])) if key in settings else "" for key in keys]
        took = seconds(trial.user_attrs["seconds"]) if "seconds" in trial.user_attrs else ""
        rows.append([str(trial.number), *map(escape, result), *values, took, escape("; ".join(notes))])
    head = ["trial", *_objective_names(swept), *(key.partition(".")[2] for key in keys), "time", ""]
    marked = [trial.number == swept.winner.number for trial in swept.trials]
    return f"<h2>Trials</h2>\n{_table(head, rows, marked)}"


def _objective_names(swept: Swept) -> list[str]:
    return [swept.metric.name if name == "metric" else name for name in swept.objectives]


def _space(swept: Swept) -> str:
    rows = [[escape(dimension.key), escape(str(dimension))] for dimension in swept.space]
    return f"<h2>Space</h2>\n{_table(['key', 'tried'], rows)}"


def _importance(swept: Swept) -> str:
    heading = "<h2>Importance</h2>"
    if not swept.importance:
        return f'{heading}\n<p class="remark">Too few trials have a result to say which keys mattered.</p>'
    rows = [
        [escape(key.partition(".")[2]), f'<div class="share">{share_bar(value)}</div>', share(value)]
        for key, value in swept.importance.items()
    ]
    remark = (
        "Share of the variance of the validation metric over the trials that each key accounts for (fANOVA, Hutter et "
        "al. 2014). Of a few dozen trials it is a rough figure."
    )
    return f'{heading}\n<p class="remark">{remark}</p>\n{_table(["key", "", "share"], rows)}'


def _history(swept: Swept) -> str:
    """The metric of each trial over their number, with the best so far as a staircase."""
    results = [(trial.number, trial.values[0]) for trial in swept.trials if has_result(trial)]
    if len(results) < 2:
        return ""
    values = [value for _, value in results]
    spare = max(0.002, 0.1 * (max(values) - min(values)))
    across = Axis(results[0][0], results[-1][0], start=10, end=97)
    up = Axis(min(values) - spare, max(values) + spare, start=_BOTTOM, end=_TOP)
    parts = [*_grid(across, up), *_staircase(results, across, up, higher=swept.metric.higher_is_better)]
    for number, value in results:
        css = "dot winner" if number == swept.winner.number else "dot"
        title = f"trial {number}: {value:.4f}"
        parts.append(
            Markup('<circle cx="{}%" cy="{}" r="4" class="{}"><title>{}</title></circle>').format(
                *(across.at(number), up.at(value), css, title)
            )
        )
    label = f"{swept.metric.name} on the validation part by trial"
    return f"<h2>{escape(label)}</h2>\n{draw(_HEIGHT, label, parts)}"


def _grid(across: Axis, up: Axis) -> Iterator[Markup]:
    for tick in up.ticks():
        yield line(9, 97, up.at(tick), up.at(tick), "grid")
        yield text_at(8, up.at(tick) + 4, f"{tick:g}", "", "end")
    for tick in across.ticks():
        yield text_at(across.at(tick), _BOTTOM + 18, f"{tick:g}", "", "middle")


def _staircase(results: Sequence[tuple[int, float]], across: Axis, up: Axis, *, higher: bool) -> Iterator[Markup]:
    number, leading = results[0]
    for following, value in results[1:]:
        yield line(across.at(number), across.at(following), up.at(leading), up.at(leading), "best")
        better = max(leading, value) if higher else min(leading, value)
        yield line(across.at(following), across.at(following), up.at(leading), up.at(better), "best")
        number, leading = following, better
