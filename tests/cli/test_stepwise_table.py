"""The short table of a language model: what it says, that it fits in 80 columns, and that a pipe takes its letters."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from edgetune.serve.report import Pair
from edgetune.serve.stepwise.report import LanguageReport, SampleAnswers
from edgetune.stepwise.table import print_language_report

SAMPLE = ("prompt  ", "expected  ", "base    ", "bundle    ")
BUNDLE = "/home/somebody/projects/stories/bundles/" + "a-long-name-" * 5


@pytest.fixture(scope="module")
def full() -> LanguageReport:
    return LanguageReport.load(Path(__file__).parent.parent / "benchmarks" / "stepwise" / "sample_report.json")


def printed(report: LanguageReport, encoding: str = "ascii") -> str:
    """What a pipe of ASCII receives; a letter that it cannot take raises."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    console = Console(file=stream, width=80, force_terminal=False)
    print_language_report(report, BUNDLE, f"{BUNDLE}/report.html", console)
    stream.flush()
    return raw.getvalue().decode(encoding)


def rows(output: str) -> list[list[str]]:
    """The lines of the table as cells."""
    lines = [line.strip() for line in output.split("\n") if not line.startswith(SAMPLE)]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines if "  " in line]


def test_the_table_has_its_rows(full: LanguageReport) -> None:
    assert rows(printed(full)) == [
        ["base (PyTorch)", "bundle", "change"],
        ["perplexity", "9.912", "4.519", "-54.4%"],
        ["chrf", "0.184", "0.328", "+0.144"],
        ["exact match", "0.012", "0.072", "+0.060"],
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
    answers = "Its answers: chrf 0.328 instead of 0.331, exact match 0.072 instead of 0.074."
    assert f"{full.verdict} {cost} {answers} {full.why}" in words
    assert output.endswith(f"bundle  {BUNDLE}\nreport  {BUNDLE}/report.html\n")
    assert "\x1b" not in output
    assert all(len(line) <= 80 for line in output.split("\n") if BUNDLE not in line)


def test_what_was_not_measured_is_said(full: LanguageReport) -> None:
    report = msgspec.structs.replace(
        full, chosen="", candidates=[], proof=None, first_token_ms=[], decoding=[], memory=None, cold_start_ms=None,
        size_bytes=Pair(base=252_000_000, bundle=None),
    )  # fmt: skip
    output = printed(report)
    assert rows(output)[1:9] == [
        ["perplexity", "9.912", "not measured"],
        ["chrf", "0.184", "not measured"],
        ["exact match", "0.012", "not measured"],
        ["tokens/s", "not measured", "not measured"],
        ["first token", "not measured", "not measured"],
        ["peak memory", "not measured", "not measured"],
        ["cold start", "not measured", "not measured"],
        ["size", "252 MB", "not measured"],
    ]
    assert "Against the tuned model" not in output
    assert "Its answers" not in output
    assert "None" not in output


def test_brackets_of_a_user_are_no_markup(full: LanguageReport) -> None:
    verdict = "[red]kept[/red] [/]"
    assert verdict in printed(msgspec.structs.replace(full, verdict=verdict))


def test_one_sample_shows_what_the_bundle_says(full: LanguageReport) -> None:
    lines = printed(full).split("\n")
    place = lines.index("prompt    Tell a story of a fox.")
    assert lines[place - 1] == ""
    assert lines[place + 1 : place + 5] == [
        "expected  A fox lived in a wood.",
        "base      Fox fox fox",
        "bundle    Once upon a time there was a red fox.",
        "",
    ]
    assert "prompt  " not in printed(msgspec.structs.replace(full, samples=[]))


def test_what_a_model_says_stays_on_its_line_and_commands_no_terminal(full: LanguageReport) -> None:
    sample = SampleAnswers(prompt="卡还没到?\n" * 30, reference=None, base="", bundle="\x1b[31mred\x07 \u202e[b]x[/b]")
    report = msgspec.structs.replace(full, samples=[sample])
    lines = printed(report).split("\n")
    place = next(place for place, line in enumerate(lines) if line.startswith("prompt"))
    assert lines[place : place + 3] == [
        f"prompt    {('????? ' * 12)[:69].rstrip()}",
        "base      (empty)",
        "bundle    [31mred [b]x[/b]",
    ]
    [prompt] = [line for line in printed(report, "utf-8").split("\n") if line.startswith("prompt")]
    assert prompt.startswith("prompt    卡还没到? 卡还没到?")
    assert prompt.endswith("…")
    assert "\x1b" not in printed(report, "utf-8")


def test_a_function_of_the_user_goes_by_its_name(full: LanguageReport) -> None:
    stages = [
        msgspec.structs.replace(one, metrics={"metrics/scoring.py:how_long": 0.5} if one.stage != "onnx" else {})
        for one in full.quality.stages
    ]
    report = msgspec.structs.replace(full, quality=msgspec.structs.replace(full.quality, stages=stages))
    assert ["how long", "0.500", "0.500", "0.000"] in rows(printed(report))


def test_a_busy_machine_gives_no_ratio_of_times(full: LanguageReport) -> None:
    remark = "The machine was too busy to judge speed: other programs took 1.6 of 2 cores."
    output = printed(msgspec.structs.replace(full, timing_valid=False, timing_remark=remark, verdict="V", why=""))
    assert remark in " ".join(output.split())
    assert "faster" not in output
    assert "slower" not in output
    unjudged = [row[0] for row in rows(output) if row[-1] == "not judged"]
    assert unjudged == [
        *("tokens/s, batch 1", "tokens/s, batch 4", "tokens/s, batch 8"),
        *("first token after 16", "first token after 128", "first token after 512", "cold start"),
    ]
    assert ["perplexity", "9.912", "4.519", "-54.4%"] in rows(output)
