"""Renders a Report as one self-contained HTML page: inline style, inline SVG, no script, nothing fetched.

Stands apart from charts.py, which draws, and from report.html.jinja, which says what stands where; here a
report's values are put into reading order. Texts of users go through `clip` and jinja's escaping, and the
template isolates each, so that right-to-left text does not turn its surroundings.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from edgetune.benchmarks import charts
from edgetune.benchmarks.front import pictures
from edgetune.serve.report import GridCell, Pair, Report, StageQuality

UNKNOWN_LIMIT = 0.05  # share of unknown tokens above which the tokenizer does not fit the data
SHOWN_FIRST = 12  # rows of a long table before the rest folds away


@dataclass(frozen=True)
class Headline:
    """One of the figures at the top: what it is, the figure, and the lines that qualify it.

    `also` is a second figure of less weight in the same place, with lines of its own.
    """

    name: str
    figure: str
    details: list[str]
    also: str = ""
    also_details: tuple[str, ...] = ()


@dataclass(frozen=True)
class BarPair:
    """One quantity of base and bundle as bars, with what it means."""

    name: str
    meaning: str
    change: str
    chart: Markup


def clip(text: str, limit: int = 140) -> str:
    """`text` on one line without control characters, cut to at most `limit` characters with an ellipsis."""
    kept = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
    line = " ".join(kept.split())
    if len(line) <= limit:
        return line
    head = line[: limit - 1]
    space = head.rfind(" ")
    if space > limit * 0.8:
        head = head[:space]
    # A base letter keeps its marks, an emoji its joiners: never end between them.
    while head and (unicodedata.combining(line[len(head)]) or head[-1] == "\u200d"):
        head = head[:-1]
    return head.rstrip() + "…"


def gap(value: float | None) -> str:
    """A difference of logits, in powers of ten when it is no more than rounding."""
    if value is None or not math.isfinite(value):
        return charts.NOT_MEASURED
    if value and abs(value) < 0.001:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits}e−{abs(int(power))}"
    return charts.plain(value)


def stage_named(report: Report, name: str | None) -> StageQuality | None:
    """The quality of the stage called `name`, None where it was not measured."""
    return next((stage for stage in report.quality.stages if stage.stage == name), None)


def interval_name(report: Report) -> str:
    """What to call the candidates' drop interval: "95% CI" when the gate states its confidence."""
    confidence = report.gate.get("confidence")
    return f"{charts.plain(100 * confidence, 0)}% CI" if isinstance(confidence, float) else "CI"


def headlines(report: Report) -> list[Headline]:
    """Quality kept, speed-up, size, memory with cold start."""
    return [_quality(report), _speed(report), _bundle_size(report), _memory(report)]


def _quality(report: Report) -> Headline:
    metric, packed = report.quality.metric, report.packed
    name = f"{metric.replace('_', ' ')} kept"
    if packed is None:
        return Headline(name, charts.NOT_MEASURED, ["no candidate was packed"])
    details = []
    if len(packed.drop_interval) == 2:
        unit = " points" if charts.is_percent(metric) else ""
        moved = charts.difference(-packed.drop, metric, signed=True)
        details.append(f"{moved}{unit} from tuned" if packed.drop else "as tuned")
        low, high = (charts.difference(-bound, metric, signed=True) for bound in reversed(packed.drop_interval))
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
    if latency.speedup.ci95:
        low, high = (charts.ratio(bound) for bound in latency.speedup.ci95)
        details.append(f"95% CI {low} to {high}")
    return Headline("speed-up, p50", charts.ratio(latency.speedup.p50, charts.TOO_SMALL), details)


def _from_base(pair: Pair, better: str, worse: str) -> list[str]:
    """The line below a headline figure: where it came from, and by how much it changed."""
    if pair.base is None or pair.bundle is None:
        return []
    return [f"instead of {charts.size(pair.base)}", charts.change(pair, better, worse) or "no ratio"]


def _bundle_size(report: Report) -> Headline:
    pair = report.size_bytes
    return Headline("size", charts.size(pair.bundle), _from_base(pair, "smaller", "larger"))


def _memory(report: Report) -> Headline:
    pair, cold = charts.peak_memory(report), report.cold_start_ms
    details = _from_base(pair, "less", "more")
    also = f"cold start {charts.milliseconds(cold.bundle if cold else None)}"
    before = (f"instead of {charts.milliseconds(cold.base)}",) if cold and cold.base is not None else ()
    return Headline("memory at peak", charts.size(pair.bundle), details, also, before)


def gate_sentence(report: Report) -> str:
    """The terms of the gate, "" where the report names none."""
    terms = []
    for key, value in report.gate.items():
        if key == "max_drop" and isinstance(value, float):
            shown = charts.difference(value, report.quality.metric)
            shown += " points" if charts.is_percent(report.quality.metric) else ""
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
    unit = " points" if charts.is_percent(quality.metric) else ""
    lost = charts.difference(stage.drop, quality.metric)
    return (
        f"{sentence}: it gives the same answer for {charts.share(stage.agreement)} of the rows and loses {lost}{unit}."
    )


def stage_axis(report: Report) -> charts.Axis:
    """The axis that all rows of the quality table share."""
    stages = report.quality.stages
    return charts.score_axis([v for stage in stages for v in (stage.value, *stage.ci95)] or [0.0])


def gain_rows(report: Report) -> list[tuple[str, str, str, str, str]]:
    """(part, candidate, quality, p50, size) of each part of the packed route, with what it changed."""
    rows, before = [], None
    for gain in report.gains:
        faster = charts.times(charts.speedup(before.p50_ms, gain.p50_ms), "faster", "slower") if before else ""
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
    memory, file_size = charts.peak_memory(report), report.size_bytes
    texts = [charts.per_second(v) for v in (throughput.base, throughput.bundle)]
    speed = charts.change(throughput, "more", "fewer", more_is_better=True)
    sizes = [charts.size(v) for v in (memory.base, memory.bundle, file_size.base, file_size.bundle)]
    starts = [charts.milliseconds(v) for v in (cold.base, cold.bundle)]
    return [
        _bars("Throughput", "texts a second; more is better", speed, throughput, texts),
        _bars(
            "Memory",
            "resident at peak, one process",
            charts.change(memory, "less", "more"),
            memory,
            sizes[:2],
        ),
        _bars(
            "Cold start",
            "fresh process to first label",
            charts.change(cold, "faster", "slower"),
            cold,
            starts,
        ),
        _bars(
            "Size",
            "bytes on disk",
            charts.change(file_size, "smaller", "larger"),
            file_size,
            sizes[2:],
        ),
    ]


def _bars(name: str, meaning: str, changed: str, pair: Pair, texts: list[str]) -> BarPair:
    base = charts.Bar("base", "PyTorch", pair.base, texts[0])
    bundle = charts.Bar("bundle", "bundle", pair.bundle, texts[1])
    return BarPair(name, meaning, changed, charts.paired_bars([base, bundle]))


def memory_rows(report: Report) -> list[tuple[str, str, str]]:
    """(what, base, bundle) for each memory counter; those of a GPU only where the machine has one."""
    if report.memory is None:
        return []
    base, bundle = report.memory.base, report.memory.bundle
    counters = [
        ("resident at peak", base.rss_peak_bytes, bundle.rss_peak_bytes),
        ("of that backed by files, at the end", base.rss_file_bytes, bundle.rss_file_bytes),
        ("GPU at peak, by torch’s counter", base.gpu_peak_bytes, bundle.gpu_peak_bytes),
        ("GPU, rise of the whole device’s use", base.gpu_device_bytes, bundle.gpu_device_bytes),
    ]
    shown = counters if report.machine.gpu else counters[:2]
    return [(name, charts.size(a), charts.size(b)) for name, a, b in shown]


def render_html(report: Report) -> str:
    """`report` as one HTML page that needs nothing beside itself."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(clip=clip, gap=gap, interval_name=interval_name)
    names = ("milliseconds", "seconds", "size", "ratio", "share", "score", "difference", "plain")
    environment.filters.update({name: getattr(charts, name) for name in names})
    source = resources.files("edgetune.benchmarks").joinpath("report.html.jinja").read_text("utf-8")
    training = report.training
    page = environment.from_string(source).render(
        r=report,
        charts=charts,
        headlines=headlines(report),
        first_loss=first_loss(report),
        gate_sentence=gate_sentence(report),
        axis=stage_axis(report),
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
        unknown_limit=UNKNOWN_LIMIT,
        shown_first=SHOWN_FIRST,
    )
    return page.strip() + "\n"
