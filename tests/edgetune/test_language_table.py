"""The short table of a language model: what it says, that it fits in 80 columns, and that a pipe takes its letters."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from edgetune.serve.generation.report import LanguageReport
from edgetune.serve.report import Pair
from edgetune.tasks.language_table import print_language_report

BUNDLE = "/home/somebody/projects/stories/bundles/" + "a-long-name-" * 5


@pytest.fixture(scope="module")
def full() -> LanguageReport:
    return LanguageReport.load(Path(__file__).parent.parent / "benchmarks" / "generation" / "sample_report.json")


def printed(report: LanguageReport) -> str:
    """What a pipe of ASCII receives; a letter that it cannot take raises."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    console = Console(file=stream, width=80, force_terminal=False)
    print_language_report(report, BUNDLE, f"{BUNDLE}/report.html", console)
    stream.flush()
    return raw.getvalue().decode("ascii")


def rows(output: str) -> list[list[str]]:
    """The lines of the table as cells."""
    lines = [line.strip() for line in output.split("\n")]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines if "  " in line]


def test_the_table_has_its_rows(full: LanguageReport) -> None:
    assert rows(printed(full)) == [
        ["base (PyTorch)", "bundle", "change"],
        ["perplexity", "9.912", "4.519", "-54.4%"],
        ["tokens/s, batch 1", "38.0 /s", "312 /s", "8.2x faster"],
        ["tokens/s, batch 4", "121 /s", "640 /s", "5.3x faster"],
        ["tokens/s, batch 8", "210 /s", "105 /s", "2.0x slower"],
        ["first token after 16", "42.0 ms", "11.5 ms", "3.7x faster"],
        ["first token after 128", "161 ms", "48.0 ms", "3.4x faster"],
        ["first token after 512", "640 ms", "not measured"],
        ["peak memory", "625 MB", "124 MB", "5.0x less"],
        ["cold start", "5,120 ms", "410 ms", "12.5x faster"],
        ["size", "252 MB", "44.3 MB", "5.7x smaller"],
        ["bundle", BUNDLE],
        ["report", f"{BUNDLE}/report.html"],
    ]


def test_verdict_what_it_cost_and_whole_paths_follow(full: LanguageReport) -> None:
    output = printed(full)
    words = " ".join(output.split())
    cost = (
        "Against the tuned model: perplexity +0.83% (95% CI +0.19% to +1.47%), KL 0.0084 nats a token, "
        "top-1 agreement 95.3%."
    )
    assert f"{full.verdict} {cost}" in words
    assert output.endswith(f"bundle  {BUNDLE}\nreport  {BUNDLE}/report.html\n")
    assert "\x1b" not in output
    assert all(len(line) <= 80 for line in output.split("\n") if BUNDLE not in line)


def test_what_was_not_measured_is_said(full: LanguageReport) -> None:
    report = msgspec.structs.replace(
        full, chosen="", candidates=[], proof=None, first_token_ms=[], decoding=[], memory=None, cold_start_ms=None,
        size_bytes=Pair(base=252_000_000, bundle=None),
    )  # fmt: skip
    output = printed(report)
    assert rows(output)[1:7] == [
        ["perplexity", "9.912", "not measured"],
        ["tokens/s", "not measured", "not measured"],
        ["first token", "not measured", "not measured"],
        ["peak memory", "not measured", "not measured"],
        ["cold start", "not measured", "not measured"],
        ["size", "252 MB", "not measured"],
    ]
    assert "Against the tuned model" not in output
    assert "None" not in output


def test_brackets_of_a_user_are_no_markup(full: LanguageReport) -> None:
    verdict = "[red]kept[/red] [/]"
    assert verdict in printed(msgspec.structs.replace(full, verdict=verdict))
