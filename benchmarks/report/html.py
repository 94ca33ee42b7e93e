"""Renders a Report as one self-contained HTML page: inline style, inline SVG, no script, nothing fetched.

Stands apart from charts.py, which draws, from page.py, which pages of other tasks share, and from report.html.jinja,
which says what stands where; here a report's values are put into reading order.
"""

from __future__ import annotations

from markupsafe import Markup

from edgetune.benchmarks.report import charts
from edgetune.benchmarks.report.front import pictures
from edgetune.benchmarks.report.page import (
    BarPair,
    Headline,
    bars,
    clip,
    counter_rows,
    memory_bars,
    memory_headline,
    page_environment,
    size_bars,
    size_headline,
)
from edgetune.serve.report import GridCell, Pair, Report, StageQuality
from edgetune.tune.metrics import is_error, title_of

UNKNOWN_LIMIT = 0.05  # share of unknown tokens above which the tokenizer does not fit the data
SHOWN_FIRST = 12  # rows of a long table before the rest folds away


def stage_named(report: Report, name: str | None) -> StageQuality | None:
    """The quality of the stage called `name`, None where it was not measured."""
    return next((stage for stage in report.quality.stages if stage.stage == name), None)


def interval_name(report: Report) -> str:
    """What to call the candidates' drop interval: "95% CI" when the gate states its confidence."""
    confidence = report.gate.get("confidence")
    return f"{charts.plain(100 * confidence, 0)}% CI" if isinstance(confidence, float) else "CI"


def headlines(report: Report) -> list[Headline]:
    """Quality kept, speed-up, size, memory with cold start."""
    memory = memory_headline(charts.peak_memory(report), report.cold_start_ms)
    return [_quality(report), _speed(report), size_headline(report.size_bytes), memory]


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
        details.append(f"{interval_name(report)} {low} to {high}")
    base = stage_named(report, "base")
    if base:
        details.append(f"base {charts.score(base.value, metric, 1)}")
    return Headline(name, charts.score(packed.value, metric, 1), details)


def _speed(report: Report) -> Headline:
    latency = report.latency_ms
    if latency is None:
        return Headline("speed-up, p50", charts.NOT_MEASURED, [])
    base, bundle = (charts.milliseconds(s.p50, charts.TOO_SMALL) for s in (latency.base, latency.bundle))
    details = [f"{base} → {bundle}"]
    if not report.timing_valid:
        return Headline("speed-up, p50", charts.NOT_JUDGED, [*details, "the machine was too busy"])
    if latency.speedup.ci95:
        low, high = (charts.ratio(bound) for bound in latency.speedup.ci95)
        details.append(f"95% CI {low} to {high}")
    return Headline("speed-up, p50", charts.ratio(latency.speedup.p50, charts.TOO_SMALL), details)


def gate_sentence(report: Report) -> str:
    """The terms of the gate, "" where the report names none."""
    terms = []
    for key, value in report.gate.items():
        if key in ("max_drop", "max_rise") and isinstance(value, float):
            shown = charts.loss(value, report.quality.metric) + charts.loss_unit(report.quality.metric)
        elif key == "metric":
            shown = title_of(str(value))
        elif key == "confidence" and isinstance(value, float):
            shown = charts.share(value).replace(".0%", "%")
        elif isinstance(value, (int, float)):
            shown = f"{value:,g}"
        else:
            shown = clip(value.replace("_", " "), 60)
        terms.append(f"{key.replace('_', ' ')} {shown}")
    return f"Gate: {', '.join(terms)}." if terms else ""


def first_loss(report: Report) -> str:
    """Where quality was first lost after tuning, as a sentence."""
    quality = report.quality
    stage = stage_named(report, quality.first_loss)
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
    return charts.score_axis([v for stage in stages for v in (stage.value, *stage.ci95)] or [0.0])


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
    none = Pair(base=None, bundle=None)
    throughput, cold = report.throughput_per_second or none, report.cold_start_ms or none
    speed = charts.change(throughput, "more", "fewer", more_is_better=True)
    faster = charts.change(cold, "faster", "slower")
    if not report.timing_valid:
        speed = faster = charts.NOT_JUDGED
    rates = charts.per_second(throughput.base), charts.per_second(throughput.bundle)
    starts = charts.milliseconds(cold.base), charts.milliseconds(cold.bundle)
    return [
        bars("Throughput", "texts a second; more is better", speed, throughput, rates),
        memory_bars(charts.peak_memory(report)),
        bars("Cold start", "fresh process to first answer", faster, cold, starts),
        size_bars(report.size_bytes),
    ]


def memory_rows(report: Report) -> list[tuple[str, str, str]]:
    """(what, base, bundle) for each memory counter; those of a GPU only where the machine has one."""
    if report.memory is None:
        return []
    return counter_rows(report.memory.base, report.memory.bundle, gpu=report.machine.gpu is not None)


def render_html(report: Report) -> str:
    """`report` as one HTML page that needs nothing beside itself."""
    environment = page_environment()
    environment.filters["interval_name"] = interval_name
    training = report.training
    page = environment.get_template("report.html.jinja").render(
        r=report,
        charts=charts,
        headlines=headlines(report),
        first_loss=first_loss(report),
        gate_sentence=gate_sentence(report),
        axis=stage_axis(report),
        further=charts.further_metrics(report),
        tuned=stage_named(report, "tuned"),
        latency_chart=latency_chart(report),
        pictures=pictures(report),
        gain_rows=gain_rows(report),
        grid=grid(report.grid_ms),
        bar_pairs=bar_pairs(report),
        memory_rows=memory_rows(report),
        training_chart=charts.training_curve(
            training.curve, report.quality.metric, training.probe_value, training.best_epoch
        ),
        classes=sorted(report.quality.classes, key=lambda c: (c.f1, -c.rows, c.label)),
        confusions=sorted(report.quality.confusions, key=lambda c: -c.rows),
        stages_built=list(dict.fromkeys([*report.build_seconds, *report.build_peak_bytes])),
        planned=charts.plan_and_truth(report),
        unknown_limit=UNKNOWN_LIMIT,
        shown_first=SHOWN_FIRST,
    )
    return page.strip() + "\n"
