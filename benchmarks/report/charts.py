"""Writes figures as text and draws the report's charts as inline SVG: pure functions of numbers.

Positions along x are percentages, so that letters keep their size on a phone; curves lie in a nested,
stretched viewBox with strokes that do not stretch. Colours are CSS classes of report-style.css.jinja, which
knows light and dark. A figure that is None or not finite reads "not measured", never 0. Must not import
jinja2: the terminal writes its figures with these functions too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from edgetune.serve.report import BuildReport, CurvePoint, LatencySummary, Pair
from edgetune.tune.metrics import is_error, is_percent, title_of

NOT_MEASURED = "not measured"
TOO_SMALL = "n too small"
NOT_JUDGED = "not judged"  # a ratio of times that were taken on a busy machine
_MAX_RUG = 400  # ticks under a latency strip; more would only add bytes
_MAX_DOTS = 40  # points of a curve that are still drawn as dots


def plain(value: float, places: int | None = None) -> str:
    """`value` with three significant digits (or `places` decimals), thousands set apart, a true minus."""
    if places is None:
        size = abs(value)
        places = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.0995 or size == 0 else 3
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", "−")


def milliseconds(value: float | None, absent: str = NOT_MEASURED) -> str:
    """`value` ms with its unit, in seconds from 10,000 ms up."""
    if value is None or not math.isfinite(value):
        return absent
    return f"{plain(value)} ms" if abs(value) < 9_999.5 else f"{plain(value / 1000)} s"


def seconds(value: float | None) -> str:
    """`value` seconds, in minutes from 600 s up."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"{plain(value)} s" if value < 600 else f"{plain(value / 60)} min"


def plan_and_truth(report: BuildReport) -> str:
    """How long the planned stages took and were expected to take; "" where nothing was planned."""
    both = [stage for stage in report.planned_seconds if stage in report.build_seconds]
    if not both:
        return ""
    took, planned = (
        sum(by_stage[stage] for stage in both) for by_stage in (report.build_seconds, report.planned_seconds)
    )
    return f"The build took {seconds(took)}; {seconds(planned)} were planned."


def interval_name(report: BuildReport) -> str:
    """What to call the candidates' interval: "95% CI" when the gate states its confidence."""
    confidence = report.gate.get("confidence")
    return f"{plain(100 * confidence, 0)}% CI" if isinstance(confidence, float) else "CI"


def size(value: float | None) -> str:
    """`value` bytes in decimal kB, MB or GB."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    for limit, divisor, unit in ((1e5, 1e3, "kB"), (9.995e8, 1e6, "MB")):
        if value < limit:
            return f"{plain(value / divisor)} {unit}"
    return f"{plain(value / 1e9)} GB"


def ratio(value: float | None, absent: str = NOT_MEASURED) -> str:
    """`value` as "6.5×"; near 1, where it matters, with two decimals."""
    if value is None or not math.isfinite(value):
        return absent
    return f"{plain(value, 0 if value >= 99.5 else 1 if value >= 1.995 else 2)}×"


def share(value: float | None) -> str:
    """A share of 1 as a percentage with one decimal; tiny but not zero reads "<0.1%", all "100%"."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if 0 < value < 0.0005:
        return "<0.1%"
    return f"{plain(100 * value, 0 if value in (0, 1) else 1)}%"


def per_second(value: float | None) -> str:
    """A rate of texts."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else f"{plain(value)} /s"


def score(value: float | None, metric: str, places: int = 2) -> str:
    """A value of `metric`: accuracy in percent with `places` decimals, else a number with two more."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"{plain(100 * value, places)}%" if is_percent(metric) else plain(value, places + 2)


def difference(value: float | None, metric: str, signed: bool = False) -> str:
    """A difference of two values of `metric`, in the points (or units) that `score` shows."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    text = plain(100 * value, 2) if is_percent(metric) else plain(value, 4)
    return f"+{text}" if signed and value > 0 else text


def loss(value: float | None, metric: str, signed: bool = False) -> str:
    """What was lost of `metric`: of a score a drop as `difference` writes it, of an error its rise in percent."""
    if not is_error(metric):
        return difference(value, metric, signed)
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    text = f"{plain(100 * value, 2)}%"
    return f"+{text}" if signed and value > 0 else text


def loss_name(metric: str) -> str:
    """What a loss of `metric` is called."""
    return "rise" if is_error(metric) else "drop"


def loss_unit(metric: str) -> str:
    """What `loss` leaves to be said of its unit."""
    return " points" if is_percent(metric) else ""


def speedup(base: float | None, bundle: float | None) -> float | None:
    """`base` over `bundle`, None where either is missing or `bundle` is 0."""
    return base / bundle if base is not None and bundle else None


def times(factor: float | None, better: str, worse: str) -> str:
    """`factor` in words: "3.9× smaller", or "2.0× larger" for 0.5; "" where it is missing."""
    if not factor or not math.isfinite(factor):
        return ""
    # Where the ratio prints as 1.0 there is no direction to tell.
    if 0.95 < factor < 1.05:
        return "about the same"
    return f"{ratio(max(factor, 1 / factor))} {better if factor > 1 else worse}"


def change(pair: Pair, better: str, worse: str, more_is_better: bool = False) -> str:
    """How the bundle of `pair` differs from the base, in the words of `times`."""
    base, bundle = (pair.bundle, pair.base) if more_is_better else (pair.base, pair.bundle)
    return times(speedup(base, bundle), better, worse)


def heat(value: float) -> float:
    """Strength in -1..1 of the tint for a speed-up: 0 at 1×, 1 at 10× and up, negative when slower."""
    return max(-1.0, min(1.0, math.log10(value))) if value > 0 else -1.0


@dataclass(frozen=True)
class Axis:
    """Maps `low`..`high` to `start`..`end` percent of a chart's width or height."""

    low: float
    high: float
    log: bool = False
    start: float = 0.0
    end: float = 100.0

    def at(self, value: float) -> float:
        """Percent at which `value` lies, held within the chart."""
        low, high, value = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        part = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + (self.end - self.start) * max(0.0, min(1.0, part)), 2)

    def ticks(self) -> list[float]:
        """Between two and eight round values: 1, 2, 5 steps on a log axis, even ones else."""
        if self.log and self.high > 6 * self.low:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if self.high < 300 * self.low else (1,)
            return [t for d in decades for s in steps if self.low <= (t := s * 10.0**d) <= self.high]
        rough = (self.high - self.low) / 4 or 1.0
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _padded(values: Sequence[float], least: float, start: float = 4, end: float = 96) -> Axis:
    """A linear axis around `values` that spans at least `least`."""
    low, high = min(values), max(values)
    spare = max(0.0, least - (high - low)) / 2 + 0.08 * (high - low)
    return Axis(low - spare, high + spare, start=start, end=end)


def draw(height: float, label: str, parts: Sequence[Markup], css: str = "chart") -> Markup:
    """`parts` as one picture as wide as its place; `label` is read to those who do not see it."""
    return Markup('<svg class="{}" role="img" aria-label="{}" width="100%" height="{}">{}</svg>').format(
        css, label, height, Markup("").join(parts)
    )


def text_at(x: float, y: float, text: str, css: str = "", anchor: str = "start", dx: float = 0) -> Markup:
    """A text at `x` percent and `y` px."""
    return Markup('<text x="{}%" y="{}" dx="{}" text-anchor="{}" class="{}">{}</text>').format(
        x, y, dx, anchor, css, text
    )


def line(x1: float, x2: float, y1: float, y2: float, css: str) -> Markup:
    """From `x1` percent and `y1` px to `x2` and `y2`."""
    return Markup('<line x1="{}%" x2="{}%" y1="{}" y2="{}" class="{}"/>').format(x1, x2, y1, y2, css)


def _stretched(top: float, height: float, paths: Sequence[Markup]) -> Markup:
    """`paths`, drawn in 0..100 by 0..100, stretched over the chart's width from `top` down `height` px."""
    return Markup(
        '<svg x="0" y="{}" width="100%" height="{}" viewBox="0 0 100 100" preserveAspectRatio="none">{}</svg>'
    ).format(top, height, Markup("").join(paths))


def _path(d: str, css: str) -> Markup:
    return Markup('<path d="{}" class="{}" vector-effect="non-scaling-stroke"/>').format(d, css)


def density(samples: Sequence[float], axis: Axis, points: int = 160) -> list[tuple[float, float]]:
    """Gaussian kernel density of `samples` along the log `axis`: (x percent, height in 0..1).

    The width is Silverman's (Density Estimation, 1986, eq. 3.31) on log10 of the samples.
    """
    logs = np.log10(np.asarray(samples, dtype=np.float64))
    quartiles = np.percentile(logs, [25, 75])
    spread = min(float(logs.std()), float(quartiles[1] - quartiles[0]) / 1.34) or float(logs.std())
    # A strip narrower than a pixel or two would be drawn as a spike.
    least = (math.log10(axis.high) - math.log10(axis.low)) / 300
    width = max(0.9 * spread * len(logs) ** -0.2, least)
    grid = np.linspace(math.log10(axis.low), math.log10(axis.high), points)
    heights = np.exp(-0.5 * ((grid[:, None] - logs[None, :]) / width) ** 2).sum(axis=1)
    heights /= heights.max()
    return [(axis.at(float(10**x)), round(float(y), 4)) for x, y in zip(grid, heights, strict=True)]


def latency_strips(strips: Sequence[tuple[str, str, LatencySummary]]) -> Markup:
    """Latency distributions over one log axis. Each strip is (css class, name, summary); "" without figures.

    Each strip is scaled to its own peak; ticks below it are single calls, at most 400 of them.
    """
    values = [v for _, _, s in strips for v in (*s.samples, s.p50, s.p90) if v is not None and v > 0]
    if not values:
        return Markup("")
    axis = Axis(min(values) / 1.35, max(values) * 1.25, log=True)
    row, bottom = 116, 116 * len(strips)
    parts = [line(axis.at(t), axis.at(t), 0, bottom, "grid") for t in axis.ticks()]
    for index, (css, name, summary) in enumerate(strips):
        parts += _strip(css, name, summary, axis, row * index)
    parts.append(line(0, 100, bottom, bottom, "axis"))
    # The unit stands at the right end: no figure may run into it.
    ticks = [t for t in axis.ticks() if axis.at(t) < 91]
    parts += [text_at(axis.at(t), bottom + 18, f"{t:g}", "tick", "middle") for t in ticks]
    parts.append(text_at(100, bottom + 18, "ms", "tick", "end"))
    return draw(bottom + 26, "Distribution of latency in ms, logarithmic axis", parts)


def _strip(css: str, name: str, summary: LatencySummary, axis: Axis, top: float) -> list[Markup]:
    """One latency strip of 116 px: name and figures, p50 and p90 marks, density, ticks of single calls."""
    floor = top + 98
    parts = [text_at(0, top + 16, name, f"name {css}")]
    samples = [v for v in summary.samples if v > 0]
    if len(samples) >= 5:
        curve = " L".join(f"{x} {round(100 - 100 * y, 2)}" for x, y in density(samples, axis))
        parts.append(_stretched(floor - 52, 52, [_path(f"M0 100 L{curve} L100 100 Z", f"area {css}")]))
    if samples:
        picks = np.linspace(0, len(samples) - 1, min(len(samples), _MAX_RUG)).round().astype(int)
        rug = " ".join(f"M{axis.at(v)} 0V100" for v in np.sort(samples)[picks])
        parts.append(_stretched(floor + 3, 7, [_path(rug, f"rug {css}")]))
    marks = (("p50", summary.p50, "end", -4), ("p90", summary.p90, "start", 4))
    for mark, value, anchor, dx in marks:
        if value is not None:
            x = axis.at(value)
            parts.append(line(x, x, top + 30, floor, f"mark {mark} {css}"))
            parts.append(text_at(x, top + 38, mark, "tick", anchor, dx))
    figures = " · ".join(f"{mark} {milliseconds(value, TOO_SMALL)}" for mark, value, _, _ in marks)
    parts.append(text_at(100, top + 16, figures, "figure", "end"))
    return parts


def score_axis(values: Sequence[float]) -> Axis:
    """The axis that the interval dots of one table share: around `values`, at least one point wide."""
    return _padded(values, 0.01, start=6, end=94)


def score_ticks(axis: Axis, metric: str) -> Markup:
    """The head of a column of interval dots: at most three ticks, since the column may be narrow."""
    ticks = axis.ticks()
    ticks = ticks[:: max(1, math.ceil(len(ticks) / 3))]
    factor = 100 if is_percent(metric) else 1
    parts = [text_at(axis.at(t), 11, f"{round(factor * t, 6):g}", "tick", "middle") for t in ticks]
    return draw(20, f"Axis of {metric}", parts, "dots")


def interval_dot(value: float, interval: Sequence[float], axis: Axis, guide: float | None, css: str) -> Markup:
    """One value as a dot with its interval as a bar; `guide` is the value that all rows compare with."""
    parts = [] if guide is None else [line(axis.at(guide), axis.at(guide), 0, 36, "guide")]
    if len(interval) == 2:
        parts.append(line(axis.at(interval[0]), axis.at(interval[1]), 18, 18, f"whisker {css}"))
    parts.append(Markup('<circle cx="{}%" cy="18" r="4.5" class="dot {}"/>').format(axis.at(value), css))
    return draw(36, f"{value:.4f}", parts, "dots")


@dataclass(frozen=True)
class Bar:
    """One bar: its CSS class, its name, its value (None when not measured) and the text at its end."""

    css: str
    name: str
    value: float | None
    text: str


def paired_bars(bars: Sequence[Bar]) -> Markup:
    """Bars from zero under each other, named at the left, each with its figure at the end."""
    longest = max((bar.value or 0 for bar in bars), default=0)
    parts = []
    for index, bar in enumerate(bars):
        top = 28 * index
        parts.append(text_at(0, top + 17, bar.name, "name"))
        # 58 px of names, then at most 58% bar: the figure behind it still fits on a phone.
        length = round(58 * (bar.value or 0) / longest, 2) if longest else 0
        drawn = Markup('<rect y="{}" height="16" width="{}%" rx="2" class="area {}"/>').format(top + 4, length, bar.css)
        if bar.value is None:
            drawn = Markup("")
        figure = text_at(length, top + 17, bar.text, "figure", dx=0 if bar.value is None else 8)
        parts.append(Markup('<svg x="58" width="100%" overflow="visible">{}{}</svg>').format(drawn, figure))
    return draw(28 * len(bars), ", ".join(f"{bar.name} {bar.text}" for bar in bars), parts)


def share_bar(value: float) -> Markup:
    """`value` in 0..1 as a thin bar over a full-length rail."""
    rail = Markup('<rect y="7" height="4" width="100%" rx="2" class="rail"/>')
    bar = Markup('<rect y="7" height="4" width="{}%" rx="2" class="area bundle"/>')
    return draw(18, f"{value:.3f}", [rail, bar.format(round(100 * max(0.0, min(1.0, value)), 2))], "dots")


def twin_bars(base: float | None, bundle: float | None, longest: float) -> Markup:
    """Two thin bars from zero under each other, scaled to `longest`; what was not measured has none."""
    parts = [
        Markup('<rect y="{}" height="6" width="{}%" rx="2" class="area {}"/>').format(
            top, round(100 * max(0.0, min(1.0, value / longest)), 2), css
        )
        for css, value, top in (("base", base, 3), ("bundle", bundle, 12))
        if value is not None and math.isfinite(value) and longest > 0
    ]
    named = ", ".join(
        f"{name} {NOT_MEASURED if value is None else plain(value)}"
        for name, value in (("PyTorch", base), ("bundle", bundle))
    )
    return draw(21, named, parts, "dots")


def _curve(points: Sequence[tuple[float, float]], x: Axis, y: Axis, top: float, css: str) -> list[Markup]:
    """A line through `points` and, while they are few, a dot on each. The panel is 130 px high."""
    places = [(x.at(a), y.at(b)) for a, b in points]
    if not places:
        return []
    path = _path("M" + " L".join(f"{a} {b}" for a, b in places), f"curve {css}")
    dots = [
        Markup('<circle cx="{}%" cy="{}" r="3" class="dot {}"/>').format(a, round(top + 1.3 * b, 1), css)
        for a, b in places
    ]
    return [_stretched(top, 130, [path]), *(dots if len(dots) <= _MAX_DOTS else [])]


def _panel(x: Axis, y: Axis, top: float, factor: float) -> list[Markup]:
    """The horizontal grid of one 130 px panel with its figures at the left."""
    parts = []
    for tick in y.ticks():
        height = round(top + 1.3 * y.at(tick), 1)
        parts.append(line(x.start - 1, 100, height, height, "grid"))
        parts.append(text_at(0, height + 4, f"{round(factor * tick, 6):g}", "tick"))
    return parts


def training_curve(curve: Sequence[CurvePoint], metric: str, probe: float | None, best_epoch: float | None) -> Markup:
    """Losses above, the validation metric below, over epochs; the dashed line is `probe`, the head alone."""
    if not curve:
        return Markup("")
    last = max(point.epoch for point in curve)
    x = Axis(0, last, start=11, end=98)
    train = [(p.epoch, p.train_loss) for p in curve if p.train_loss is not None]
    held_out = [(p.epoch, p.validation_loss) for p in curve]
    values = [(p.epoch, p.validation_value) for p in curve]
    loss = Axis(0, 1.08 * max(b for _, b in train + held_out) or 1, start=100, end=0)
    quality = _padded([*(b for _, b in values), *(() if probe is None else (probe,))], 0.005, start=100, end=0)
    lower = 196
    parts = [text_at(0, 12, "loss", "name"), *_panel(x, loss, 24, 1)]
    parts += _curve(train, x, loss, 24, "base") + _curve(held_out, x, loss, 24, "bundle")
    parts.append(text_at(0, lower - 12, f"{title_of(metric)} on the validation part", "name"))
    parts += _panel(x, quality, lower, 100 if is_percent(metric) else 1)
    if probe is not None:
        at_probe = round(lower + 1.3 * quality.at(probe), 1)
        parts.append(line(x.start - 1, 100, at_probe, at_probe, "guide"))
    parts += _curve(values, x, quality, lower, "bundle")
    if best_epoch is not None:
        best = x.at(best_epoch)
        parts.append(line(best, best, 24, lower + 130, "guide"))
    parts += [text_at(x.at(t), lower + 150, f"{t:g}", "tick", "middle") for t in x.ticks() if t > 0]
    parts.append(text_at(0, lower + 150, "epoch", "tick"))
    return draw(lower + 158, "Losses and validation metric by epoch", parts)
