"""The figures of a language model's report as its page and the terminal say them: which one is meant, and its letters.

Stands apart from html.py, so that the terminal needs no jinja2; charts.py, which it builds on, knows no perplexity.
"""

from __future__ import annotations

import math

from edgetune.benchmarks.report import charts
from edgetune.serve.stepwise.report import AnswerQuality, Decoding, FirstToken, LanguageReport


def packed_stage(report: LanguageReport) -> AnswerQuality | None:
    """The ledger's row of what was packed, None where nothing was, or where the test part never saw it."""
    return report.stage(report.chosen or None)


def smallest_batch(report: LanguageReport) -> Decoding | None:
    """Decoding at the smallest batch that was measured: what one user waits for."""
    return min(report.decoding, key=lambda one: one.batch, default=None)


def shortest_prompt(report: LanguageReport) -> FirstToken | None:
    """The first token after the shortest prompt that was measured."""
    return min(report.first_token_ms, key=lambda one: one.prompt_tokens, default=None)


def times_faster(decoding: Decoding) -> float | None:
    """How many times the base's tokens a second; from the two rates where the report has no ratio of its own."""
    if decoding.speedup is not None:
        return decoding.speedup
    return charts.speedup(decoding.bundle_per_second, decoding.base_per_second)


def perplexity(value: float | None) -> str:
    """`value` with three decimals, fewer where it is large."""
    if value is None or not math.isfinite(value):
        return charts.NOT_MEASURED
    return charts.plain(value, 3 if value < 100 else 1 if value < 10_000 else 0)


def rise(value: float | None) -> str:
    """A relative rise in percent with its sign, as "+0.84%"; a fall has a true minus, what rounds to zero no sign."""
    if value is None or not math.isfinite(value):
        return charts.NOT_MEASURED
    places = 2 if abs(value) < 0.1 else 1 if abs(value) < 1 else 0
    text = f"{charts.plain(100 * value, places)}%"
    return f"+{text}" if value > 0 and any(digit in text for digit in "123456789") else text


def interval(bounds: list[float] | None) -> str:
    """Two perplexities as "4.210 to 4.530"."""
    if bounds is None or len(bounds) != 2:
        return charts.NOT_MEASURED
    return f"{perplexity(bounds[0])} to {perplexity(bounds[1])}"


def rise_interval(bounds: list[float] | None) -> str:
    """Two rises as "+0.20% to +1.48%"."""
    if bounds is None or len(bounds) != 2:
        return charts.NOT_MEASURED
    return f"{rise(bounds[0])} to {rise(bounds[1])}"
