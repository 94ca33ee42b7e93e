"""The page of a language model's report: well formed, complete, safe to open, and honest about what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgetune.benchmarks.report.page import gate_sentence, passage
from edgetune.benchmarks.stepwise import report_figures as figures
from edgetune.benchmarks.stepwise.html import (
    SAMPLE_LIMIT,
    decoding_rows,
    first_token_rows,
    headlines,
    render_language_html,
    stage_axis,
)
from edgetune.serve.report import CurvePoint, Pair
from edgetune.serve.stepwise.report import (
    AnswerQuality,
    AnswersQuality,
    ConversationSummary,
    Decoding,
    FirstToken,
    LanguageReport,
    LanguageTraining,
    SampleAnswers,
)

Read = Callable[[str], Any]
SECTIONS = (
    "built", "quality", "candidates", "decoding", "first-token", "footprint", "samples", "training", "data", "notes",
    "machine", "build", "repeat", "versions",
)  # fmt: skip


@pytest.fixture(scope="module")
def full() -> LanguageReport:
    return LanguageReport.load(Path(__file__).with_name("sample_report.json"))


@pytest.fixture(scope="module")
def bare(full: LanguageReport) -> LanguageReport:
    """What a build gives that measured nothing but the base, and packed nothing."""
    return LanguageReport(
        name="bare", task="text-generation", created="2026-11-22T14:05:31Z", edgetune="0.3.0",
        verdict="Nothing was packed.", base="tiny", chosen="", command="edgetune build bare.yaml", machine=full.machine,
        data=ConversationSummary(
            source="rows.jsonl", digest="sha256:0", rows={"train": 8}, kind="text", tokens_mean=4, tokens_max=6
        ),
        training=LanguageTraining(method="lora", best_epoch=0, epochs=0, remark="", curve=[], settings={}),
        quality=AnswersQuality(
            metric="perplexity", n=4, tokens=12, stages=[AnswerQuality(stage="base", value=61.2)]
        ),
        candidates=[], size_bytes=Pair(base=None, bundle=None),
    )  # fmt: skip


def changed(report: LanguageReport, **fields: Any) -> LanguageReport:
    """`report` with some top-level fields replaced."""
    return msgspec.structs.replace(report, **fields)


def test_the_full_page_is_well_formed_and_fetches_nothing(full: LanguageReport, read_page: Read) -> None:
    source = render_language_html(full)
    page = read_page(source)
    assert source.startswith("<!doctype html>\n")
    style = source[source.index("<style>") : source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert page.ids == list(SECTIONS)


def test_headlines_qualify_each_figure(full: LanguageReport) -> None:
    speed, quality, memory, size = headlines(full)
    assert (speed.name, speed.figure) == ("tokens a second, batch 1", "312 /s")
    assert speed.details == ["instead of 38.0 /s", "8.2× faster than PyTorch", "95% CI 7.9× to 8.5×"]
    assert (speed.also, speed.also_details) == ("first token 11.5 ms", ("instead of 42.0 ms",))
    assert (quality.name, quality.figure) == ("perplexity", "4.519")
    assert quality.details == ["+0.83% from tuned", "95% CI +0.19% to +1.47%", "tuned 4.482", "base 9.912"]
    assert (memory.figure, memory.details) == ("124 MB", ["instead of 625 MB", "5.0× less"])
    assert (memory.also, memory.also_details) == ("cold start 410 ms", ("instead of 5,120 ms",))
    assert (size.figure, size.details) == ("44.3 MB", ["instead of 252 MB", "5.7× smaller"])


def test_a_busy_machine_gives_no_ratio_of_times(full: LanguageReport, read_page: Read) -> None:
    remark = "The machine was too busy to judge speed: other programs took 1.6 of 2 cores."
    busy = changed(full, timing_valid=False, timing_remark=remark, verdict="V", why="")
    text = read_page(render_language_html(busy)).text
    assert f"Speed could not be judged. {remark}" in text
    speed = headlines(busy)[0]
    assert (speed.figure, speed.details) == ("not judged", ["the machine was too busy"])
    assert "faster than" not in text
    assert "12.5× faster" not in text
    assert {row.times for row in (*decoding_rows(busy), *first_token_rows(busy))} == {"not judged"}
    assert headlines(busy)[1] == headlines(full)[1]


def test_the_ledger_compares_with_the_tuned_model(full: LanguageReport, read_page: Read) -> None:
    text = read_page(render_language_html(full)).text
    assert "Perplexity of 61,250 tokens in the answers of 500 held-out rows" in text
    assert "base 9.912 9.410 to 10.470 not compared: the tuned model is the measure 48.7% tuned" in text
    assert "tuned 4.482 4.310 to 4.670 the measure 63.1% merged" in text
    assert "onnx 4.482 4.310 to 4.670 0.00% 3.1e−9 100% 63.1% int4_head8" in text
    assert "int4_head8 4.519 4.350 to 4.710 +0.83% 0.008 95.3% 62.8% Generated answers" in text
    assert (
        "Generated answers Scores of 100 answers against those of the data, generated greedily with at most 212 tokens"
        in text
    )
    assert "stage chrf exact match base 0.184 0.012 tuned 0.331 0.074 int4_head8 0.328 0.072 Candidates" in text


def test_every_candidate_stands_there_with_verdict_coverage_and_reason(full: LanguageReport, read_page: Read) -> None:
    source = render_language_html(full)
    text = read_page(source).text
    assert "int4 ✕ fail 4.620 +3.59% +2.91% to +4.31% 0.031 91.2% 98.0% 38.9 MB" in text
    assert "Bytes: 87.0% UINT4, 13.0% FLOAT." in text
    assert "In the file: 14 matrices in 4 bits." in text
    assert "1 left as it was model.norm.weight: no matrix of a product" in text
    assert "int4_head8 chosen ✓ pass 4.497 +0.83%" in text
    assert "? inconclusive" in text
    for candidate in full.candidates:
        assert candidate.reason in text
    assert text.count("Not accepted.") == 1
    assert source.count('<span class="tag">chosen</span>') == 1
    assert "Gate: max rise 2%, confidence 95%, when inconclusive accept, rows 500." in text
    assert "On the test part , 500 rows, opened for the choice alone: pass ; perplexity 4.519 instead of 4.482" in text


def test_why_it_won_and_what_was_not_tried_are_said(
    full: LanguageReport, bare: LanguageReport, read_page: Read
) -> None:
    text = read_page(render_language_html(full)).text
    assert (
        "Candidates int4_head8 won: schemes are tried smallest first, and before it int4 (rise +3.59%, agreement"
        in text
    )
    assert "Not tried fp32 : int8, which is smaller, passed the gate" in text
    assert "Not tried" not in read_page(render_language_html(bare)).text


def test_speeds_stand_in_order_with_bars_to_one_scale(full: LanguageReport, read_page: Read) -> None:
    source = render_language_html(full)
    text = read_page(source).text
    assert "1 38.0 /s 312 /s 8.2× 7.9× to 8.5× 4 121 /s 640 /s" in text
    assert "8 210 /s 105 /s 0.50× not measured" in text  # slower, and told so from the two rates
    assert "16 42.0 ms 11.5 ms 3.7× 128 161 ms 48.0 ms 3.4× 512 640 ms not measured not measured" in text
    assert 'width="100.0%" rx="2" class="area bundle"' in source  # 640 tokens a second, the fastest of all
    assert 'aria-label="PyTorch 640, bundle not measured"' in source


def test_samples_show_all_answers_with_their_lines(full: LanguageReport, read_page: Read) -> None:
    source = render_language_html(full)
    assert "Tell a story\nof a fox.</p>" in source
    assert ">Once upon a time\nthere was a red fox.</dd>" in source
    text = read_page(source).text
    assert (
        "Tell a story of a fox. reference A fox lived in a wood. base Fox fox fox tuned Once upon a time there was a "
        "fox. bundle Once upon a time there was a red fox." in text
    )
    assert "<script>alert(1)</script> base (an empty answer) tuned" in text  # its data answers nothing that was kept
    assert "<script" not in source
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in source
    assert "&lt;b&gt;no&lt;/b&gt;" in source


def test_an_answer_that_was_not_generated_is_said(full: LanguageReport, read_page: Read) -> None:
    sample = SampleAnswers(prompt="Hello", tuned="Hi")
    text = read_page(render_language_html(changed(full, samples=[sample]))).text
    assert "Hello base not measured tuned Hi bundle not measured" in text


def test_texts_of_users_are_escaped_isolated_and_clipped(full: LanguageReport, read_page: Read) -> None:
    hostile = '"><img src=x onerror=alert(1)>'
    everywhere = changed(
        full, name=hostile, verdict=hostile, base=hostile, command=hostile, notes=[hostile],
        why=hostile, skipped={hostile: hostile},
        samples=[
            SampleAnswers(prompt=hostile, reference=hostile, base="y" * 5000, tuned=hostile, bundle=hostile)
        ],
        data=msgspec.structs.replace(full.data, source=hostile, kind=hostile, findings=[hostile]),
        training=msgspec.structs.replace(full.training, remark=hostile, settings={hostile: hostile}),
        candidates=[
            msgspec.structs.replace(c, scheme=hostile, reason=hostile, made_by=hostile, left=[hostile])
            for c in full.candidates
        ],
        quality=msgspec.structs.replace(full.quality, stages=[
            AnswerQuality(stage=hostile, value=2.0, metrics={hostile: 1.0})
        ]),
    )  # fmt: skip
    source = render_language_html(everywhere)
    page = read_page(source)
    assert hostile in page.text
    assert '<bdi dir="auto">' in source
    assert "y" * (SAMPLE_LIMIT - 1) + "…" in source
    assert "y" * SAMPLE_LIMIT not in source


def test_a_bare_report_says_not_measured_and_shows_no_zero(bare: LanguageReport, read_page: Read) -> None:
    page = read_page(render_language_html(bare))
    assert [one.figure for one in headlines(bare)] == ["not measured"] * 4
    assert page.ids == [name for name in SECTIONS if name not in ("samples", "notes")]
    assert "Decoding not measured Time to the first token not measured" in page.text
    assert "base 61.200 not measured not compared" in page.text
    assert "no candidate was packed" in page.text
    assert "none was packed" in page.text
    assert "best epoch 0 of 0 validation loss there not measured" in page.text
    assert " 0 MB" not in page.text
    assert "0 ms" not in page.text


def test_a_stage_without_comparisons_says_not_measured(bare: LanguageReport, read_page: Read) -> None:
    stages = [AnswerQuality(stage="onnx", value=5.0)]
    text = read_page(
        render_language_html(changed(bare, quality=msgspec.structs.replace(bare.quality, stages=stages)))
    ).text
    assert "onnx 5.000" + " not measured" * 5 in text


def test_half_measured_speeds_show_no_ratio(bare: LanguageReport, read_page: Read) -> None:
    report = changed(
        bare,
        decoding=[Decoding(batch=1, base_per_second=None, bundle_per_second=90.0)],
        first_token_ms=[FirstToken(prompt_tokens=16, base_ms=None, bundle_ms=None)],
    )
    page = read_page(render_language_html(report))
    assert (headlines(report)[0].figure, headlines(report)[0].details) == ("90.0 /s", [])
    assert "1 not measured 90.0 /s not measured not measured" in page.text


def test_an_endless_perplexity_breaks_nothing(bare: LanguageReport, read_page: Read) -> None:
    stages = [AnswerQuality(stage="base", value=float("inf")), AnswerQuality(stage="tuned", value=5.0)]
    quality = msgspec.structs.replace(bare.quality, stages=stages)
    page = read_page(render_language_html(changed(bare, quality=quality)))
    assert "base not measured" in page.text


def test_the_curve_is_drawn_where_there_is_one(full: LanguageReport, bare: LanguageReport, read_page: Read) -> None:
    assert 'aria-label="Losses and validation metric by epoch"' in render_language_html(full)
    assert "Losses and validation metric" not in render_language_html(bare)
    text = read_page(render_language_html(full)).text
    assert "best epoch 2 of 3 validation loss there 1.4950 nats a token validation tokens right there 63.4%" in text
    point = CurvePoint(epoch=1.0, train_loss=None, validation_loss=1.5, validation_value=4.5)
    training = msgspec.structs.replace(bare.training, curve=[point])
    assert 'class="dot bundle"' in render_language_html(changed(bare, training=training))


def test_a_gpu_brings_its_memory_counters(full: LanguageReport, read_page: Read) -> None:
    machine = msgspec.structs.replace(full.machine, gpu="NVIDIA H200")
    text = read_page(render_language_html(changed(full, machine=machine))).text
    assert "GPU at peak, by torch’s counter not measured not measured" in text
    assert "GPU at peak" not in read_page(render_language_html(full)).text


def test_before_the_test_part_the_chosen_candidate_stands_at_the_top(full: LanguageReport) -> None:
    quality = headlines(changed(full, proof=None))[1]
    # The ledger is of the test part: its values do not belong beside one of the validation part.
    assert (quality.figure, quality.details) == ("4.497", ["+0.83% from tuned", "95% CI +0.21% to +1.44%"])


def test_the_axis_holds_every_interval_of_the_ledger(full: LanguageReport) -> None:
    axis = stage_axis(full.quality.stages)
    places = [axis.at(value) for value in (4.31, 4.482, 9.912, 10.47)]
    assert places == sorted(places)
    assert places[0] > 6
    assert places[-1] < 94
    assert places[1] - places[0] > 1  # the base is far off and the others are still told apart
    assert 2 <= len(axis.ticks()) <= 8


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.5191, "4.519"),
        (123.46, "123.5"),
        (45_678.9, "45,679"),
        (None, "not measured"),
        (float("inf"), "not measured"),
    ],
)
def test_perplexities(value: float | None, text: str) -> None:
    assert figures.perplexity(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00826, "+0.83%"),
        (-0.5, "−50.0%"),
        (0.0, "0.00%"),
        (1e-7, "0.00%"),
        (-1e-7, "0.00%"),
        (3.2, "+320%"),
        (None, "not measured"),
    ],
)
def test_rises(value: float | None, text: str) -> None:
    assert figures.rise(value) == text


def test_a_gate_that_asks_for_agreement_says_so(full: LanguageReport) -> None:
    assert gate_sentence(changed(full, gate={})) == ""
    assert gate_sentence(changed(full, gate={"min_agreement": 0.985})) == "Gate: min agreement 98.5%."


def test_a_passage_keeps_its_lines_and_no_more_than_one_empty_one() -> None:
    assert passage("one\r\n\n\n\n  two\t three\x00 \n") == "one\n\ntwo three"
    assert passage("line\n" * 50, 20) == "line\nline\nline\nline…"
    assert passage("") == ""
