"""Renders a LanguageReport as one self-contained HTML page: inline style, inline SVG, no script, nothing fetched.

Stands apart from report_figures.py, which the terminal shares, from ../page.py, which pages of other tasks share, and
from report.html.jinja, which says what stands where; here a report's values are put into reading order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgetune.benchmarks.report import charts
from edgetune.benchmarks.report.page import (
    Headline,
    footprint_bars,
    memory_headline,
    render,
    size_headline,
)
from edgetune.benchmarks.stepwise import report_figures as figures
from edgetune.serve.report import CurvePoint
from edgetune.serve.stepwise.report import AnswerQuality, LanguageReport, SampleAnswers

SAMPLE_LIMIT = 600  # characters of a prompt or an answer on the page; what a build writes is cut to as many
NOT_COMPARED = "not compared: the tuned model is the measure"


@dataclass(frozen=True)
class SpeedRow:
    """One row of a table of speeds: what was asked, the letters of both sides, and their bars."""

    asked: int
    base: str
    bundle: str
    times: str
    interval: str
    chart: Markup


def headlines(report: LanguageReport) -> list[Headline]:
    """Decoding speed with the first token, perplexity, memory with cold start, size."""
    return [_decoding(report), _perplexity(report), memory_headline(report), size_headline(report)]


def _decoding(report: LanguageReport) -> Headline:
    decoding, first = figures.smallest_batch(report), figures.shortest_prompt(report)
    also = f"first token {charts.milliseconds(first.bundle_ms if first else None)}"
    before = (f"instead of {charts.milliseconds(first.base_ms)}",) if first and first.base_ms is not None else ()
    if decoding is None:
        return Headline("tokens a second", charts.NOT_MEASURED, [], also, before)
    name = f"tokens a second, batch {charts.plain(decoding.batch, 0)}"
    details = []
    if decoding.base_per_second is not None:
        details.append(f"instead of {charts.per_second(decoding.base_per_second)}")
    if not report.timing_valid:
        return Headline(name, charts.NOT_JUDGED, ["the machine was too busy"])
    faster = charts.times(figures.times_faster(decoding), "faster", "slower")
    if faster:
        details.append(f"{faster} than PyTorch" if faster != "about the same" else "about as fast as PyTorch")
    if decoding.ci95 and len(decoding.ci95) == 2:
        details.append(f"95% CI {charts.ratio(decoding.ci95[0])} to {charts.ratio(decoding.ci95[1])}")
    return Headline(name, charts.per_second(decoding.bundle_per_second), details, also, before)


def _perplexity(report: LanguageReport) -> Headline:
    packed, name = report.packed, report.quality.metric.replace("_", " ")
    if packed is None:
        return Headline(name, charts.NOT_MEASURED, ["no candidate was packed"])
    tuned, base = report.stage("tuned"), report.stage("base")
    details = [f"{figures.rise(packed.rise)} from tuned" if packed.rise else "as tuned"]
    if len(packed.rise_interval) == 2:
        details.append(f"{charts.interval_name(report)} {figures.rise_interval(packed.rise_interval)}")
    # The proof is of the test part, as the ledger is; a candidate's own row is of the validation part.
    if report.proof and tuned:
        details.append(f"tuned {figures.perplexity(tuned.value)}")
    if report.proof and base:
        details.append(f"base {figures.perplexity(base.value)}")
    return Headline(name, figures.perplexity(packed.value), details)


def stage_axis(stages: Sequence[AnswerQuality]) -> charts.Axis:
    """The axis that all rows of the ledger share: logarithmic, for a base may be far off the tuned model."""
    values = [v for stage in stages for v in (stage.value, *(stage.ci95 or ())) if math.isfinite(v) and v > 0]
    low, high = min(values, default=1.0), max(values, default=10.0)
    spare = max(1.02, (high / low) ** 0.08)
    return charts.Axis(low / spare, high * spare, log=True, start=6, end=94)


def stage_dot(stage: AnswerQuality, axis: charts.Axis, tuned: AnswerQuality | None) -> Markup:
    """A stage's perplexity with its interval beside the tuned model's."""
    if not (math.isfinite(stage.value) and stage.value > 0):
        return Markup("")
    css = "base" if stage.stage == "base" else "bundle"
    return charts.interval_dot(stage.value, stage.ci95 or [], axis, tuned.value if tuned else None, css)


def decoding_rows(report: LanguageReport) -> list[SpeedRow]:
    """Tokens a second of both sides by batch."""
    rows = sorted(report.decoding, key=lambda one: one.batch)
    longest = _longest([rate for one in rows for rate in (one.base_per_second, one.bundle_per_second)])
    return [
        SpeedRow(
            one.batch,
            charts.per_second(one.base_per_second),
            charts.per_second(one.bundle_per_second),
            charts.ratio(figures.times_faster(one)) if report.timing_valid else charts.NOT_JUDGED,
            f"{charts.ratio(one.ci95[0])} to {charts.ratio(one.ci95[1])}"
            if one.ci95 and len(one.ci95) == 2 and report.timing_valid
            else charts.NOT_MEASURED,
            charts.twin_bars(one.base_per_second, one.bundle_per_second, longest),
        )
        for one in rows
    ]


def first_token_rows(report: LanguageReport) -> list[SpeedRow]:
    """Ms to the first token of both sides by length of the prompt."""
    rows = sorted(report.first_token_ms, key=lambda one: one.prompt_tokens)
    longest = _longest([ms for one in rows for ms in (one.base_ms, one.bundle_ms)])
    return [
        SpeedRow(
            one.prompt_tokens,
            charts.milliseconds(one.base_ms),
            charts.milliseconds(one.bundle_ms),
            charts.ratio(charts.speedup(one.base_ms, one.bundle_ms)) if report.timing_valid else charts.NOT_JUDGED,
            "",
            charts.twin_bars(one.base_ms, one.bundle_ms, longest),
        )
        for one in rows
    ]


def _longest(values: Sequence[float | None]) -> float:
    return max((value for value in values if value is not None and math.isfinite(value)), default=0.0)


def sample_answers(sample: SampleAnswers) -> list[tuple[str, str | None]]:
    """(who, answer) of one sample: the data's own first, where there is one."""
    reference = [("reference", sample.reference)] if sample.reference is not None else []
    return [*reference, ("base", sample.base), ("tuned", sample.tuned), ("bundle", sample.bundle)]


def best_point(report: LanguageReport) -> CurvePoint | None:
    """The evaluation that was handed on: the last one no later than the best epoch."""
    training = report.training
    reached = [point for point in training.curve if point.epoch <= training.best_epoch + 1e-6]
    return max(reached, key=lambda point: point.epoch, default=None)


def shares(interval: Sequence[float] | None) -> str:
    """An interval of a share, "" where there is none."""
    return f"{charts.share(interval[0])} to {charts.share(interval[1])}" if interval and len(interval) == 2 else ""


def render_language_html(report: LanguageReport) -> str:
    """`report` as one HTML page that needs nothing beside itself."""
    training = report.training
    values = {
        "figures": figures,
        "axis": stage_axis(report.quality.stages),
        "stage_dot": stage_dot,
        "metric_names": report.further_metrics,
        "tuned": report.stage("tuned"),
        "not_compared": NOT_COMPARED,
        "decoding_rows": decoding_rows(report),
        "first_token_rows": first_token_rows(report),
        "training_chart": charts.training_curve(training.curve, "token_accuracy", None, training.best_epoch),
        "best_point": best_point(report),
        "shares": shares,
        "sample_answers": sample_answers,
        "sample_limit": SAMPLE_LIMIT,
    }
    return render(report, "stepwise-report.html.jinja", headlines(report), footprint_bars(report, "token"), values)
