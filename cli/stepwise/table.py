"""Prints in the terminal what a LanguageReport says in full on its page: a row a figure, the verdict, one of its sample
answers and two paths.

Must not import jinja2 or torch.
"""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from edgetune import terminal
from edgetune.benchmarks.report import charts
from edgetune.benchmarks.stepwise import report_figures as figures
from edgetune.serve.stepwise.report import LanguageReport
from edgetune.terminal import Row, footprint_rows, timed_row


def figure_rows(report: LanguageReport) -> tuple[Row, ...]:
    """The rows of the table: a figure of base, bundle and how the bundle differs."""
    return (
        *_objective(report),
        _quality(report),
        *_answers(report),
        *_decoding(report),
        *_first_token(report),
        *footprint_rows(report),
    )


def print_language_report(report: LanguageReport, bundle: str, html: str, console: Console) -> None:
    """Print the table, the verdict, what compression cost, why it was chosen, a sample, and where all of it lies."""
    remarks = (
        _cost(report),
        _answers_cost(report),
        report.why,
        charts.plan_and_truth(report),
        _sample(report, console),
    )
    terminal.print_report(report, figure_rows(report), remarks, bundle, html, console)


def _quality(report: LanguageReport) -> Row:
    name = report.quality.metric.replace("_", " ")
    base, packed = report.stage("base"), figures.packed_stage(report)
    before, after = base.value if base else None, packed.value if packed else None
    change = figures.rise(after / before - 1) if before and after is not None else ""
    return name, figures.perplexity(before), figures.perplexity(after), change


def _objective(report: LanguageReport) -> list[Row]:
    """What an objective of preferences or rewards was for; of the packed bundle, or where it was not asked of tuned."""
    if report.objective is None:
        return []
    base, tuned, packed = (report.objective.stage(name) for name in ("base", "tuned", report.chosen))
    names = {
        "preference accuracy": "preference_accuracy",
        "preference margin, nats": "margin",
        "mean reward": "reward",
        "tokens of an answer": "answer_tokens",
    }
    rows = []
    for title, name in names.items():
        before, learnt, after = (None if one is None else getattr(one, name) for one in (base, tuned, packed))
        after, whose = (learnt, ", tuned") if after is None else (after, "")
        if before is not None and after is not None:
            rows.append((title + whose, _score(before), _score(after), _gain(after - before)))
    return rows


def _answers(report: LanguageReport) -> list[Row]:
    """The metrics of generated answers; of a user's function its name alone, without file or module."""
    base, packed = report.stage("base"), figures.packed_stage(report)
    before, after = (stage.metrics if stage else {} for stage in (base, packed))
    return [
        (
            _metric(name),
            _score(before.get(name)),
            _score(after.get(name)),
            _gain(after[name] - before[name]) if name in before and name in after else "",
        )
        for name in dict.fromkeys([*before, *after])
    ]


def _metric(name: str) -> str:
    return name.rpartition(":")[2].replace("_", " ")


def _score(value: float | None) -> str:
    return charts.NOT_MEASURED if value is None else charts.plain(value, 3)


def _gain(value: float) -> str:
    return f"{'+' if value >= 0.0005 else ''}{charts.plain(value, 3)}"


def _decoding(report: LanguageReport) -> list[Row]:
    rows = [
        (
            f"tokens/s, batch {speed.batch}",
            charts.per_second(speed.base_per_second),
            charts.per_second(speed.bundle_per_second),
            charts.times(figures.times_faster(speed), "faster", "slower") if report.timing_valid else charts.NOT_JUDGED,
        )
        for speed in sorted(report.decoding, key=lambda speed: speed.batch)
    ]
    return rows or [("tokens/s", charts.NOT_MEASURED, charts.NOT_MEASURED, "")]


def _first_token(report: LanguageReport) -> list[Row]:
    delays = sorted(report.first_token_ms, key=lambda delay: delay.prompt_tokens)
    rows = [
        timed_row(report, f"first token after {delay.prompt_tokens}", delay.base_ms, delay.bundle_ms)
        for delay in delays
    ]
    return rows or [("first token", charts.NOT_MEASURED, charts.NOT_MEASURED, "")]


def _cost(report: LanguageReport) -> str:
    """What the packed graph lost against the tuned model, "" where nothing was packed."""
    packed = report.packed
    if packed is None:
        return ""
    return (
        f"Against the tuned model: perplexity {figures.rise(packed.rise)} "
        f"({charts.interval_name(report)} {figures.rise_interval(packed.rise_interval)}), "
        f"KL {charts.plain(packed.kl, 4)} nats a token, top-1 agreement {charts.share(packed.agreement)}."
    )


def _answers_cost(report: LanguageReport) -> str:
    """What generated answers lost against those of the tuned model, "" where they were not scored."""
    tuned, packed = report.stage("tuned"), figures.packed_stage(report)
    if tuned is None or packed is None:
        return ""
    pairs = [
        f"{_metric(name)} {_score(value)} instead of {_score(tuned.metrics[name])}"
        for name, value in packed.metrics.items()
        if name in tuned.metrics
    ]
    return f"Its answers: {', '.join(pairs)}." if pairs else ""


def _sample(report: LanguageReport, console: Console) -> str:
    """The first sample on a line each for prompt and answers, "" where there is none."""
    if not report.samples:
        return ""
    sample = report.samples[0]
    texts = (
        ("prompt", sample.prompt),
        ("expected", sample.reference),
        ("base", sample.base),
        ("bundle", sample.bundle),
    )
    lines = [f"{name:<10}{_line(text, console)}" for name, text in texts if text is not None]
    return "\n" + "\n".join(lines)


def _line(text: str, console: Console) -> str:
    """What a model or the data says, on one line that the console can show: no control characters, its letters only."""
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    line = Text(" ".join(words).encode(console.encoding, "replace").decode(console.encoding, "replace"))
    line.truncate(console.width - 11, overflow="ellipsis" if console.encoding.startswith("utf") else "crop")
    return line.plain or "(empty)"
