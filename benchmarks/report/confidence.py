"""What a report says of confidence, in sentences and as inline SVG: the reliability plot and the risk-coverage curve.

Beside charts.py, whose axes and colours it shares: pure functions of a report's numbers, no jinja2.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from edgetune.benchmarks.report.charts import Axis, draw, line, plain, share, text_at
from edgetune.serve.report import Report
from edgetune.serve.report_confidence import Abstention, AnsweredRows, Calibration, ReliabilityBin, RiskPoint

_HEIGHT, _TOP, _BOTTOM = 250, 14, 206
_LEFT, _RIGHT = 9, 97
# Of the AUROC: below it a probability hardly tells texts out of scope from others.
_TELLING = 0.75


def reliability_plot(calibration: Calibration) -> Markup:
    """Share of right answers against probability, before and after calibration; on the diagonal both are the same."""
    axes = Axis(0, 1, start=_LEFT, end=_RIGHT), Axis(0, 1, start=_BOTTOM, end=_TOP)
    parts = [*_grid(*axes)]
    parts.append(line(axes[0].at(0), axes[0].at(1), axes[1].at(0), axes[1].at(1), "frontline"))
    parts += _bins(calibration.bins_before, *axes, "base") if calibration.temperature != 1 else ()
    parts += _bins(calibration.bins, *axes, "bundle")
    return draw(_HEIGHT, "Share of right answers against their probability", parts)


def risk_plot(curve: Sequence[RiskPoint], test: AnsweredRows, max_error: float | None) -> Markup:
    """Share of wrong answers against the share of rows answered; the dot is the bundle, the dashed line max_error."""
    highest = max(*(point.error for point in curve), test.error or 0.0, max_error or 0.0, 0.01)
    x, y = Axis(0, 1, start=_LEFT, end=_RIGHT), Axis(0, 1.1 * highest, start=_BOTTOM, end=_TOP)
    parts = [*_grid(x, y)]
    if max_error is not None:
        parts.append(line(_LEFT, _RIGHT, y.at(max_error), y.at(max_error), "guide"))
    places = [(x.at(point.coverage), y.at(point.error)) for point in curve]
    parts += [line(x1, x2, y1, y2, "mark base") for (x1, y1), (x2, y2) in itertools.pairwise(places)]
    if test.error is not None:
        parts.append(_dot(x.at(test.coverage), y.at(test.error), 5.5, "bundle"))
    return draw(_HEIGHT, "Share of wrong answers against the share of rows answered", parts)


def confidence_values(report: Report) -> dict[str, object]:
    """What the page's part on confidence wants, by name; empty plots where there is nothing to draw."""
    calibration, abstention = report.calibration, report.abstention
    return {
        "confidence_sentences": confidence_sentences(report),
        "reliability_plot": reliability_plot(calibration) if calibration else Markup(""),
        "risk_plot": risk_plot(abstention.curve, abstention.test, abstention.max_error) if abstention else Markup(""),
    }


def _grid(x: Axis, y: Axis) -> Iterator[Markup]:
    for tick in x.ticks():
        yield line(x.at(tick), x.at(tick), _TOP, _BOTTOM, "grid")
        yield text_at(x.at(tick), _BOTTOM + 18, f"{100 * tick:g}%", "tick", "middle")
    for tick in y.ticks():
        yield line(_LEFT, _RIGHT, y.at(tick), y.at(tick), "grid")
        yield text_at(_LEFT - 1, y.at(tick) + 4, f"{100 * tick:g}%", "tick", "end")


def _bins(bins: Sequence[ReliabilityBin], x: Axis, y: Axis, css: str) -> Iterator[Markup]:
    for one in bins:
        yield _dot(x.at(one.confidence), y.at(one.right), 4.5, css)


def _dot(x: float, y: float, radius: float, css: str) -> Markup:
    return Markup('<circle cx="{}%" cy="{}" r="{}" class="dot {}"/>').format(x, y, radius, css)


def confidence_sentences(report: Report) -> list[str]:
    """What the terminal and the page say: how far probabilities hold, what is answered, what of texts out of scope."""
    sentences = []
    if report.calibration is not None:
        sentences.append(calibration_sentence(report.calibration))
    if report.abstention is not None and report.abstention.abstain_below is not None:
        sentences.append(abstention_sentence(report.abstention))
    if report.abstention is not None and report.abstention.out_of_scope is not None:
        sentences.append(outside_sentence(report.abstention))
    return sentences


def calibration_sentence(calibration: Calibration) -> str:
    """The expected calibration error on the test part, and what of it is chance."""
    after = share(calibration.after.ece_equal_mass)
    start = f"Calibration: probabilities lie {after} from the share of right answers"
    if calibration.temperature != 1:
        start += f", {share(calibration.before.ece_equal_mass)} before temperature {plain(calibration.temperature, 2)}"
    return f"{start}; {share(calibration.ece_by_chance)} would be chance (ECE, {calibration.n:,} test rows)."


def abstention_sentence(abstention: Abstention) -> str:
    """How many test rows are answered, and how many of those wrongly, with intervals."""
    test, below = abstention.test, abstention.abstain_below
    answered = f"Unsure below {below:.4g}: {share(test.coverage)} of {test.n:,} test rows are answered"
    if test.error is None or test.error_ci95 is None:
        return f"{answered}."
    low, high = (share(bound) for bound in test.error_ci95)
    return f"{answered}, {share(test.error)} of those wrongly (95% interval {low} to {high})."


def outside_sentence(abstention: Abstention) -> str:
    """How texts out of scope are told from the test rows."""
    outside = abstention.out_of_scope
    if outside is None:
        return ""
    area = f"AUROC of the best probability {plain(outside.auroc, 3)}"
    if outside.auroc < _TELLING:
        area += ", which hardly tells them from texts of the classes: a class of such texts would"
    if outside.unsure is None:
        return f"Out of scope: {outside.n:,} texts, {area}; nothing is unsure, so each gets a label."
    return f"Out of scope: {share(outside.unsure)} of {outside.n:,} texts are unsure, as they should be; {area}."
