"""Draws the candidates as points of quality against latency and against size, with the front marked, as inline SVG.

Stands beside charts.py, whose axes and colours it shares: pure functions of a report's numbers, no jinja2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgetune.benchmarks.report.charts import Axis, draw, line, milliseconds, score, size, text_at
from edgetune.serve.report import CandidateReport, Report
from edgetune.tune.metrics import is_error, title_of

_HEIGHT, _TOP, _BOTTOM = 230, 14, 196
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Picture:
    """One scatter: its title, the picture, and the names behind the letters of its points."""

    title: str
    chart: Markup
    names: list[tuple[str, str]]


def pictures(report: Report) -> list[Picture]:
    """Quality against latency, and against size; in the first are those that were timed on a quiet machine."""
    letters = {one.scheme: _LETTERS[place % 26] for place, one in enumerate(report.candidates)}
    timed = [one for one in report.candidates if _p50(one) is not None and one.timing_valid]
    sized = [one for one in report.candidates if one.bundle_bytes]
    metric = report.quality.metric
    drawn = [
        ("p50, ms", timed, [_p50(one) or 0.0 for one in timed], milliseconds),
        ("size of the bundle", sized, [float(one.bundle_bytes or 0) for one in sized], size),
    ]
    return [
        Picture(
            title=f"{title_of(metric)} against {title}",
            chart=_scatter(title, shown, values, letters, metric, written),
            names=[(letters[one.scheme], one.scheme) for one in shown],
        )
        for title, shown, values, written in drawn
        if len(shown) > 1
    ]


def _p50(candidate: CandidateReport) -> float | None:
    return candidate.latency_ms.p50 if candidate.latency_ms else None


def _scatter(
    title: str,
    shown: Sequence[CandidateReport],
    values: Sequence[float],
    letters: dict[str, str],
    metric: str,
    written: Callable[[float | None], str],
) -> Markup:
    across = Axis(min(values) * 0.85, max(values) * 1.15, log=True, start=9, end=97)
    scores = [one.value for one in shown]
    spare = max(0.005, 0.15 * (max(scores) - min(scores)))
    lowest, highest = (_TOP, _BOTTOM) if is_error(metric) else (_BOTTOM, _TOP)  # what is better stands higher
    up = Axis(min(scores) - spare, max(scores) + spare, start=lowest, end=highest)
    best = _frontier([-one.value if is_error(metric) else one.value for one in shown], values)
    parts = [*_grid_x(across, written), *_grid_y(up, metric)]
    parts += _steps([(across.at(values[i]), up.at(shown[i].value)) for i in best])
    for place, one in enumerate(shown):
        css = "chosen" if one.chosen else "front" if place in best else "passed" if one.accepted else "failed"
        parts += _point(across.at(values[place]), up.at(one.value), letters[one.scheme], one, css)
    return draw(_HEIGHT, f"{metric} of the candidates against {title}", parts, "chart scatter")


def _frontier(scores: Sequence[float], values: Sequence[float]) -> list[int]:
    """Places of the points that no other one beats in both directions, more of a score being better; left to right."""
    best: list[int] = []
    for place in sorted(range(len(scores)), key=lambda i: (values[i], -scores[i])):
        if not best or scores[place] > scores[best[-1]]:
            best.append(place)
    return best


def _grid_x(axis: Axis, written: Callable[[float | None], str]) -> Iterator[Markup]:
    for tick in axis.ticks():
        yield line(axis.at(tick), axis.at(tick), _TOP, _BOTTOM, "guide")
        yield text_at(axis.at(tick), _BOTTOM + 18, written(tick), "tick", "middle")


def _grid_y(axis: Axis, metric: str) -> Iterator[Markup]:
    for tick in axis.ticks():
        yield line(9, 97, axis.at(tick), axis.at(tick), "guide")
        yield text_at(8, axis.at(tick) + 4, score(tick, metric, 1), "tick", "end")


def _steps(points: Sequence[tuple[float, float]]) -> Iterator[Markup]:
    """The front as a staircase: what is right of it and below is beaten."""
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        yield line(x1, x2, y1, y1, "frontline")
        yield line(x2, x2, y1, y2, "frontline")


def _point(x: float, y: float, letter: str, one: CandidateReport, css: str) -> Iterator[Markup]:
    title = f"{one.scheme}: {one.gate}" + (", chosen" if one.chosen else "")
    yield Markup('<circle cx="{}%" cy="{}" r="9" class="{}"><title>{}</title></circle>').format(x, y, css, title)
    yield text_at(x, y + 4, letter, f"letter {css}", "middle")
