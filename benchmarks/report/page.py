"""What the report pages of all tasks share: templates, filters, headlines, gate, pairs of bars, and the rendering.

Stands apart from html.py and stepwise/html.py, which put what their own report has into reading order. Texts of users
go through `clip` and jinja's escaping, and the templates isolate each, so that right-to-left text does not turn its
surroundings.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from edgetune.benchmarks.report import charts
from edgetune.serve.report import BuildReport, Pair
from edgetune.tune.metrics import title_of

_FILTERS = ("milliseconds", "seconds", "size", "ratio", "share", "score", "difference", "loss", "plain")


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
    return _cut(line, limit)


def passage(text: str, limit: int = 600) -> str:
    """`text` with its line breaks, no more than one empty line between two others, cut to `limit` characters."""
    # A line break counts too: whatever is kept stands in the first characters.
    lines = [clip(line, limit) for line in text[: 4 * limit].strip().splitlines()]
    kept = [line for line, before in zip(lines, ["", *lines], strict=False) if line or before]
    return _cut("\n".join(kept), limit)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    space = head.rfind(" ")
    if space > limit * 0.8:
        head = head[:space]
    # A base letter keeps its marks, an emoji its joiners: never end between them.
    while head and (unicodedata.combining(text[len(head)]) or head[-1] == "\u200d"):
        head = head[:-1]
    return head.rstrip() + "…"


def opening(text: str) -> str:
    """`text` as a sentence begins, its other letters as they are."""
    return text[:1].upper() + text[1:]


def gap(value: float | None) -> str:
    """A difference of logits or distributions, in powers of ten when it is no more than rounding."""
    if value is None or not math.isfinite(value):
        return charts.NOT_MEASURED
    if value and abs(value) < 0.001:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits}e−{abs(int(power))}"
    return charts.plain(value)


def from_base(pair: Pair, better: str, worse: str) -> list[str]:
    """The lines below a headline's size: where it came from, and by how much it changed."""
    if pair.base is None or pair.bundle is None:
        return []
    return [f"instead of {charts.size(pair.base)}", charts.change(pair, better, worse) or "no ratio"]


def memory_headline(report: BuildReport) -> Headline:
    """Peak memory, with the cold start below it."""
    memory, cold = report.peak_memory, report.cold_start_ms
    also = f"cold start {charts.milliseconds(cold.bundle if cold else None)}"
    before = (f"instead of {charts.milliseconds(cold.base)}",) if cold and cold.base is not None else ()
    return Headline("memory at peak", charts.size(memory.bundle), from_base(memory, "less", "more"), also, before)


def size_headline(report: BuildReport) -> Headline:
    """Bytes on disk."""
    pair = report.size_bytes
    return Headline("size", charts.size(pair.bundle), from_base(pair, "smaller", "larger"))


def gate_sentence(report: BuildReport) -> str:
    """The terms of the gate, "" where the report names none."""
    terms = [
        f"{name.replace('_', ' ')} {_term(name, value, report.quality.metric)}"
        for name, value in report.gate.items()
        if name != "min_agreement" or value
    ]
    return f"Gate: {', '.join(terms)}." if terms else ""


def _term(name: str, value: str | float, metric: str) -> str:
    if isinstance(value, str):
        return title_of(value) if name.endswith("metric") else clip(value.replace("_", " "), 60)
    if name == "max_drop":
        return charts.loss(value, metric) + charts.loss_unit(metric)
    if name in ("max_rise", "min_agreement", "confidence"):
        return charts.share(value).replace(".0%", "%")
    return f"{value:,g}"


def bars(name: str, meaning: str, changed: str, pair: Pair, texts: tuple[str, str]) -> BarPair:
    """The bars of base and bundle under each other; `texts` are their figures."""
    base = charts.Bar("base", "PyTorch", pair.base, texts[0])
    bundle = charts.Bar("bundle", "bundle", pair.bundle, texts[1])
    return BarPair(name, meaning, changed, charts.paired_bars([base, bundle]))


def footprint_bars(report: BuildReport, first: str) -> list[BarPair]:
    """Memory, cold start to the `first` thing that is answered, and size, each as two bars."""
    memory, size, cold = report.peak_memory, report.size_bytes, report.cold_start_ms or Pair(base=None, bundle=None)
    faster = charts.change(cold, "faster", "slower") if report.timing_valid else charts.NOT_JUDGED
    less, smaller = charts.change(memory, "less", "more"), charts.change(size, "smaller", "larger")
    starts = charts.milliseconds(cold.base), charts.milliseconds(cold.bundle)
    return [
        bars("Memory", "resident at peak, one process", less, memory, _sizes(memory)),
        bars("Cold start", f"fresh process to first {first}", faster, cold, starts),
        bars("Size", "bytes on disk", smaller, size, _sizes(size)),
    ]


def _sizes(pair: Pair) -> tuple[str, str]:
    return charts.size(pair.base), charts.size(pair.bundle)


def memory_rows(report: BuildReport) -> list[tuple[str, str, str]]:
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
    return [(name, charts.size(a), charts.size(b)) for name, a, b in counters[: 4 if report.machine.gpu else 2]]


def render(
    report: BuildReport,
    template: str,
    headlines: Sequence[Headline],
    bar_pairs: Sequence[BarPair],
    values: Mapping[str, object],
) -> str:
    """`report` as one HTML page that needs nothing beside itself.

    Args:
        report: of any task.
        template: file name of the task's own part, which draws start and end in too.
        headlines: the figures at the top.
        bar_pairs: of the section on the footprint.
        values: what the template wants beside these, by name.
    """
    page = (
        _environment()
        .get_template(template)
        .render(
            {
                "r": report,
                "charts": charts,
                "headlines": headlines,
                "gate_sentence": gate_sentence(report),
                "interval_name": charts.interval_name(report),
                "bar_pairs": bar_pairs,
                "memory_rows": memory_rows(report),
                "stages_built": list(dict.fromkeys([*report.build_seconds, *report.build_peak_bytes])),
                "planned": charts.plan_and_truth(report),
                **values,
            }
        )
    )
    return page.strip() + "\n"


def _environment() -> jinja2.Environment:
    """An environment that escapes, refuses unknown names, and knows this package's templates and filters."""
    folder = resources.files("edgetune.benchmarks.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clip=clip, passage=passage, gap=gap, title=title_of, opening=opening)
    environment.filters.update({name: getattr(charts, name) for name in _FILTERS})
    return environment
