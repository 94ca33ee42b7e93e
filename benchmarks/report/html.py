"""Renders a Report as one self-contained HTML page: inline style, inline SVG, no script, nothing fetched.

Stands apart from charts.py, which draws, from page.py, which pages of other tasks share, and from report.html.jinja,
which says what stands where; here a report's values are put into reading order.
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from edgetune.benchmarks.report import charts
from edgetune.benchmarks.report.cascades import cascade_rows, cascade_sentence
from edgetune.benchmarks.report.front import pictures
from edgetune.benchmarks.report.page import (
    BarPair,
    Headline,
    bars,
    clip,
    footprint_bars,
    memory_headline,
    render,
    size_headline,
)
from edgetune.serve.report import GridCell, Pair, Report
from edgetune.serve.verdict import LINEAR, MAJORITY, Comparison, FloorQuality
from edgetune.tune.metrics import is_error, title_of

UNKNOWN_LIMIT = 0.05  # share of unknown tokens above which the tokenizer does not fit the data
SHOWN_FIRST = 12  # rows of a long table before the rest folds away


def headlines(report: Report) -> list[Headline]:
    """Quality kept, speed-up, size, memory with cold start."""
    return [_quality(report), _speed(report), size_headline(report), memory_headline(report)]


def _quality(report: Report) -> Headline:
    metric, packed = report.quality.metric, report.packed
    name = title_of(metric) if is_error(metric) else f"{title_of(metric)} kept"
    if packed is None:
        return Headline(name, charts.NOT_MEASURED, ["no candidate was packed"])
    details = []
    if len(packed.drop_interval) == 2:
        sign = 1 if is_error(metric) else -1  # an error's rise stays one; a score's drop is shown as it moved
        moved = charts.loss(sign * packed.drop, metric, signed=True)
        details.append(f"{moved}{charts.loss_unit(metric)} from tuned" if packed.drop else "as tuned")
        bounds = sorted(sign * bound for bound in packed.drop_interval)
        low, high = (charts.loss(bound, metric, signed=True) for bound in bounds)
        details.append(f"{charts.interval_name(report)} {low} to {high}")
    stage, base = report.stage(report.chosen), report.stage("base")
    if stage and len(stage.ci95) == 2:
        details.append(" to ".join(charts.score(bound, metric, 1) for bound in stage.ci95) + ", 95% of its own")
    if base:
        details.append(f"base {charts.score(base.value, metric, 1)}")
    constant = report.constant(metric)
    if constant is not None:
        details.append(f"constant answer {charts.score(constant, metric, 1)}")
    linear = report.floor(LINEAR)
    if linear:
        details.append(f"linear n-grams {charts.score(linear.value, metric, 1)}")
    return Headline(name, charts.score(packed.value, metric, 1), details)


def _speed(report: Report) -> Headline:
    latency = report.latency_ms
    if latency is None:
        return Headline("speed-up, p50", charts.NOT_MEASURED, [])
    base, bundle = (charts.milliseconds(s.p50, charts.TOO_SMALL) for s in (latency.base, latency.bundle))
    details = [f"{base} → {bundle}"]
    if report.timing_valid:
        mean, p90 = charts.speedup(latency.base.mean, latency.bundle.mean), latency.speedup.p90
        details.append(f"mean {charts.ratio(mean)}, p90 {charts.ratio(p90, charts.TOO_SMALL)}")
    if not report.timing_valid:
        return Headline("speed-up, p50", charts.NOT_JUDGED, [*details, "the machine was too busy"])
    if latency.speedup.ci95:
        low, high = (charts.ratio(bound) for bound in latency.speedup.ci95)
        details.append(f"95% CI {low} to {high}")
    return Headline("speed-up, p50", charts.ratio(latency.speedup.p50, charts.TOO_SMALL), details)


def first_loss(report: Report) -> str:
    """Where quality was first lost after tuning, as a sentence."""
    quality = report.quality
    stage = report.stage(quality.first_loss)
    if quality.first_loss is None:
        return "No stage after tuning answers worse than the tuned model."
    sentence = f"The first stage that answers worse than the tuned model is {quality.first_loss}"
    if stage is None or stage.agreement is None:
        return f"{sentence}."
    metric, lost = quality.metric, charts.loss(stage.drop, quality.metric)
    if is_error(metric):
        return f"{sentence}: its {title_of(metric)} is {lost} higher."
    same = charts.share(stage.agreement)
    return f"{sentence}: it gives the same answer for {same} of the rows and loses {lost}{charts.loss_unit(metric)}."


def stage_axis(report: Report) -> charts.Axis:
    """The axis that all rows of the quality table share."""
    stages = report.quality.stages
    values = [v for stage in stages for v in (stage.value, *stage.ci95)]
    values += [v for entry in _fitted(report) for v in (entry.value, *entry.ci95)]
    constant = report.constant(report.quality.metric)
    return charts.score_axis([*values, *(() if constant is None else (constant,))] or [0.0])


def _fitted(report: Report) -> list[FloorQuality]:
    """Of the floor what was fitted: the constant answer has a row of its own."""
    return [entry for entry in report.quality.floor if entry.stage != MAJORITY]


@dataclass(frozen=True)
class ComparisonRow:
    """One paired comparison: names, and what changed from the reference to the candidate, as it is shown."""

    reference: str
    candidate: str
    change: str
    low: str
    high: str
    p_value: float | None

    @classmethod
    def of(cls, pair: Comparison, metric: str) -> ComparisonRow:
        sign = 1 if is_error(metric) else -1
        low, high = (charts.loss(bound, metric, signed=True) for bound in sorted(sign * b for b in pair.drop_interval))
        return cls(
            pair.reference, pair.candidate, charts.loss(sign * pair.drop, metric, signed=True), low, high, pair.p_value
        )


def gain_rows(report: Report) -> list[tuple[str, str, str, str, str]]:
    """(part, candidate, quality, p50, size) of each part of the packed route, with what it changed."""
    rows, before = [], None
    # Gains are of the search, whose times may be worth nothing while those of the last race are sound.
    quiet = all(candidate.timing_valid for candidate in report.candidates)
    for gain in report.gains:
        faster = (
            charts.times(charts.speedup(before.p50_ms, gain.p50_ms), "faster", "slower") if before and quiet else ""
        )
        smaller = (
            charts.times(charts.speedup(before.size_bytes, gain.size_bytes), "smaller", "larger") if before else ""
        )
        p50 = charts.milliseconds(gain.p50_ms) + (f" ({faster})" if faster else "")
        size = charts.size(gain.size_bytes) + (f" ({smaller})" if smaller else "")
        rows.append((gain.part, gain.scheme, charts.score(gain.value, report.quality.metric), p50, size))
        before = gain
    return rows


def latency_chart(report: Report) -> Markup:
    """Both latency distributions, empty where nothing was timed."""
    if report.latency_ms is None:
        return Markup("")
    base, bundle = report.latency_ms.base, report.latency_ms.bundle
    return charts.latency_strips([("base", "PyTorch", base), ("bundle", clip(report.chosen or "bundle", 24), bundle)])


def grid(cells: list[GridCell]) -> tuple[list[int], list[tuple[int, list[GridCell | None]]]]:
    """The fixed grid as (token counts, rows of (batch, one cell or None for each token count))."""
    tokens = sorted({cell.tokens for cell in cells})
    at = {(cell.batch, cell.tokens): cell for cell in cells}
    return tokens, [(b, [at.get((b, t)) for t in tokens]) for b in sorted({cell.batch for cell in cells})]


def bar_pairs(report: Report) -> list[BarPair]:
    """Throughput, memory, cold start and size, each as two bars."""
    throughput = report.throughput_per_second or Pair(base=None, bundle=None)
    speed = charts.change(throughput, "more", "fewer", more_is_better=True)
    rates = charts.per_second(throughput.base), charts.per_second(throughput.bundle)
    return [
        bars(
            "Throughput",
            "texts a second; more is better",
            speed if report.timing_valid else charts.NOT_JUDGED,
            throughput,
            rates,
        ),
        *footprint_bars(report, "answer"),
    ]


def render_html(report: Report) -> str:
    """`report` as one HTML page that needs nothing beside itself."""
    training, quality = report.training, report.quality
    values = {
        "first_loss": first_loss(report),
        "axis": stage_axis(report),
        "further": report.further_metrics,
        "floor": _fitted(report),
        "floor_and_stages": [*_fitted(report), *quality.stages],
        "comparisons": [ComparisonRow.of(pair, quality.metric) for pair in quality.comparisons],
        "tuned": report.stage("tuned"),
        "latency_chart": latency_chart(report),
        "pictures": pictures(report),
        "gain_rows": gain_rows(report),
        "cascade_rows": cascade_rows(report),
        "cascade_sentence": cascade_sentence(report),
        "grid": grid(report.grid_ms),
        "training_chart": charts.training_curve(
            training.curve, quality.metric, training.probe_value, training.best_epoch
        ),
        "classes": sorted(quality.classes, key=lambda c: (c.f1, -c.rows, c.label)),
        "confusions": sorted(quality.confusions, key=lambda c: -c.rows),
        "unknown_limit": UNKNOWN_LIMIT,
        "shown_first": SHOWN_FIRST,
    }
    return render(report, "report.html.jinja", headlines(report), bar_pairs(report), values)
