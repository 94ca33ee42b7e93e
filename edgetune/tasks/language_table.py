"""Says in the terminal what a LanguageReport says in full on its page: a row a figure, the verdict and two paths.

Stands apart from the task's stages, so that `build` and `bench` end alike. Must not import jinja2 or torch.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from edgetune.benchmarks import charts
from edgetune.benchmarks.generation import report_figures as figures
from edgetune.serve.generation.report import LanguageReport
from edgetune.terminal import Row, footprint_rows, print_outcome, table_of


def language_table(report: LanguageReport) -> Table:
    """The main figures of `report`: one row each for base, bundle and how the bundle differs."""
    footprint = footprint_rows(figures.peak_memory(report), report.cold_start_ms, report.size_bytes)
    return table_of((_quality(report), *_decoding(report), *_first_token(report), *footprint))


def print_language_report(report: LanguageReport, bundle: str, html: str, console: Console) -> None:
    """Print the table, the verdict, what compression cost, and where the bundle and its report lie.

    Args:
        report: what was measured.
        bundle: path of the bundle as the user would type it.
        html: path of the page.
        console: where to print; a path is never wrapped, so that it can be copied.
    """
    print_outcome(language_table(report), (report.verdict, _cost(report)), bundle, html, console)


def _quality(report: LanguageReport) -> Row:
    name = report.quality.metric.replace("_", " ")
    base, packed = figures.stage_named(report, "base"), figures.packed_stage(report)
    before, after = base.value if base else None, packed.value if packed else None
    change = figures.rise(after / before - 1) if before and after is not None else ""
    return name, figures.perplexity(before), figures.perplexity(after), change


def _decoding(report: LanguageReport) -> list[Row]:
    rows = [
        (
            f"tokens/s, batch {found.batch}",
            charts.per_second(found.base_per_second),
            charts.per_second(found.bundle_per_second),
            charts.times(figures.times_faster(found), "faster", "slower"),
        )
        for found in sorted(report.decoding, key=lambda one: one.batch)
    ]
    return rows or [("tokens/s", charts.NOT_MEASURED, charts.NOT_MEASURED, "")]


def _first_token(report: LanguageReport) -> list[Row]:
    rows = [
        (
            f"first token after {found.prompt_tokens}",
            charts.milliseconds(found.base_ms),
            charts.milliseconds(found.bundle_ms),
            charts.times(charts.speedup(found.base_ms, found.bundle_ms), "faster", "slower"),
        )
        for found in sorted(report.first_token_ms, key=lambda one: one.prompt_tokens)
    ]
    return rows or [("first token", charts.NOT_MEASURED, charts.NOT_MEASURED, "")]


def _cost(report: LanguageReport) -> str:
    """What the packed graph lost against the tuned model, "" where nothing was packed."""
    packed = report.packed
    if packed is None:
        return ""
    return (
        f"Against the tuned model: perplexity {figures.rise(packed.rise)} "
        f"({figures.interval_name(report)} {figures.rise_interval(packed.rise_interval)}), "
        f"KL {charts.plain(packed.kl, 4)} nats a token, top-1 agreement {charts.share(packed.agreement)}."
    )
