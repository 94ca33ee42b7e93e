"""The page of a full report, of a bare one and of awkward ones: well formed, complete, and safe to open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgetune.benchmarks.report.front import pictures
from edgetune.benchmarks.report.html import bar_pairs, grid, headlines, render_html
from edgetune.benchmarks.report.page import clip, gap, gate_sentence
from edgetune.serve.report import ClassQuality, Confusion, GridCell, LatencySummary, Pair, Report, Speedup
from edgetune.serve.verdict import Comparison, Decision, FloorQuality, Reason

from ..conftest import Page, check

HERE = Path(__file__).parents[1]
SECTIONS = (
    "built", "quality", "candidates", "latency", "grid", "footprint", "training", "classes", "confusions",
    "data", "notes", "machine", "build", "repeat", "versions",
)  # fmt: skip


@pytest.fixture(scope="module")
def full() -> Report:
    return Report.load(HERE / "sample_report.json")


@pytest.fixture(scope="module")
def minimal() -> Report:
    return Report.load(HERE / "minimal_report.json")


def changed(report: Report, **fields: Any) -> Report:
    """`report` with some top-level fields replaced."""
    return msgspec.structs.replace(report, **fields)


def test_the_full_page_is_well_formed_and_fetches_nothing(full: Report) -> None:
    source = render_html(full)
    check(Page(source))
    assert source.startswith("<!doctype html>\n")
    style = source[source.index("<style>") : source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style


def test_the_sections_stand_in_reading_order(full: Report) -> None:
    assert Page(render_html(full)).ids == list(SECTIONS)


def test_verdict_and_headline_figures_are_on_the_page(full: Report) -> None:
    text = Page(render_html(full)).text
    assert full.verdict in text
    for figure in ("92.9%", "6.5×", "23.4 MB", "117 MB", "225 ms", "3,510 ms", "454 MB", "91.7 MB", "92.5%"):
        assert figure in text
    assert "Accuracy kept" in text or "accuracy kept" in text


def test_headlines_qualify_each_figure(full: Report) -> None:
    quality, speed, size, memory = headlines(full)
    assert (quality.figure, quality.details) == (
        "92.9%",
        ["−0.19 points from tuned", "95% CI −0.45 to +0.06", "92.0% to 93.8%, 95% of its own", "base 92.5%"],
    )
    assert (speed.figure, speed.details) == (
        "6.5×",
        ["7.10 ms → 1.10 ms", "mean 6.4×, p90 6.6×", "95% CI 6.3× to 6.6×"],
    )
    assert (size.figure, size.details) == ("23.4 MB", ["instead of 91.7 MB", "3.9× smaller"])
    assert (memory.figure, memory.details) == ("117 MB", ["instead of 454 MB", "3.9× less"])
    assert (memory.also, memory.also_details) == ("cold start 225 ms", ("instead of 3,510 ms",))


def test_the_decision_opens_the_page_and_the_floor_stands_in_the_ledger(full: Report) -> None:
    decision = Decision(ship="no", reasons=[Reason(rule="worse-than-linear", sentence="linear <b>is</b> better")])
    floor = [
        FloorQuality(stage="majority", value=0.013, ci95=[0.01, 0.02], described="'a' to all rows"),
        FloorQuality(stage="linear", value=0.9117, ci95=[0.901, 0.921], described="words 1-2", cpu_seconds=5.4),
    ]
    pair = Comparison(
        reference="linear", candidate="int8-dynamic", drop=-0.0176, drop_interval=[-0.027, -0.008], p_value=0.0004
    )
    quality = msgspec.structs.replace(full.quality, floor=floor, comparisons=[pair])
    report = changed(full, decision=decision, quality=quality)
    page = Page(render_html(report))
    check(page)
    assert page.text.index("Do not ship, because: linear <b>is</b> better") < page.text.index(full.verdict)
    assert "linear 91.17% 90.10% to 92.10% no pretrained model, 5.4 CPU seconds" in page.text
    assert "int8-dynamic linear +1.76 +0.80 to +2.70" in page.text
    assert "Majority: 'a' to all rows." not in page.text  # the constant answer has a row already
    assert headlines(report)[0].details[-1] == "linear n-grams 91.2%"


def test_every_candidate_stands_there_with_verdict_and_reason(full: Report) -> None:
    text = Page(render_html(full)).text
    for candidate in full.candidates:
        assert candidate.scheme in text
        assert candidate.reason in text
    assert render_html(full).count('<span class="tag">chosen</span>') == 1
    assert "? inconclusive" in text
    assert "Gate: metric accuracy, max drop 1.00 points, confidence 95%." in text
    assert "The first stage that answers worse than the tuned model is int8-dynamic" in text


def test_texts_of_users_are_escaped_and_isolated(full: Report) -> None:
    source = render_html(full)
    assert "<script" not in source
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in source
    hostile = '"><img src=x onerror=alert(1)>'
    everywhere = changed(
        full,
        name=hostile,
        verdict=hostile,
        base=hostile,
        command=hostile,
        notes=[hostile],
        data=msgspec.structs.replace(full.data, source=hostile, labels=[hostile], findings=[hostile]),
        quality=msgspec.structs.replace(
            full.quality,
            classes=[ClassQuality(label=hostile, precision=1.0, recall=1.0, f1=1.0, rows=1)],
            confusions=[Confusion(expected=hostile, predicted=hostile, rows=1, example=hostile)],
        ),
    )
    page = Page(render_html(everywhere))
    check(page)
    assert hostile in page.text
    assert '<bdi dir="auto">' in source


def test_a_bare_report_says_not_measured_and_shows_no_zero(minimal: Report) -> None:
    page = Page(render_html(minimal))
    check(page)
    assert page.text.count("not measured") >= 12
    assert "0 ms" not in page.text
    assert " 0 MB" not in page.text
    assert "n too small" in page.text
    assert "No stage after tuning answers worse" in page.text
    assert {"classes", "confusions", "notes", "versions"}.isdisjoint(page.ids)


@pytest.mark.parametrize(("share", "told"), [(0.05, False), (0.0501, True), (0.62, True)])
def test_unknown_tokens_are_emphasised_above_five_percent(minimal: Report, share: float, told: bool) -> None:
    data = msgspec.structs.replace(minimal.data, unknown_share=share)
    text = Page(render_html(changed(minimal, data=data))).text
    assert ("of the tokens are unknown to the tokenizer" in text) is told


def test_a_report_without_a_choice_says_so(full: Report) -> None:
    candidates = [msgspec.structs.replace(c, chosen=False, accepted=False, gate="fail") for c in full.candidates]
    refused = changed(full, chosen="", candidates=candidates, size_bytes=Pair(base=91_700_000, bundle=None))
    page = Page(render_html(refused))
    check(page)
    assert "no candidate was packed" in page.text
    assert "none was packed" in page.text


def test_a_bundle_that_is_slower_and_larger_is_told_plainly(full: Report) -> None:
    worse = changed(full, size_bytes=Pair(base=10_000_000, bundle=25_000_000), grid_ms=[
        GridCell(batch=1, tokens=16, base_ms=1.0, bundle_ms=2.0)
    ])  # fmt: skip
    text = Page(render_html(worse)).text
    assert "2.5× larger" in text
    assert "0.50×" in text


def test_a_busy_machine_gives_no_ratio_of_times(full: Report) -> None:
    assert full.latency_ms is not None
    remark = "The machine was too busy to judge speed: other programs took 1.6 of 2 cores."
    latency = msgspec.structs.replace(full.latency_ms, speedup=Speedup(p50=None, p90=None, ci95=None))
    candidates = [
        msgspec.structs.replace(one, timing_valid=False, bundle_bytes=one.size_bytes) for one in full.candidates
    ]
    report = changed(
        full, timing_valid=False, timing_remark=remark, latency_ms=latency, candidates=candidates, verdict="V", why=""
    )
    page = Page(render_html(report))
    check(page)
    assert f"Speed could not be judged. {remark}" in page.text
    assert headlines(report)[1].figure == "not judged"
    assert "faster" not in page.text
    assert "95% interval of the p50 ratio" not in page.text
    assert [pair.change for pair in bar_pairs(report)][::2] == ["not judged", "not judged"]
    assert [picture.title for picture in pictures(report)] == ["accuracy against size of the bundle"]
    # Quality and size keep their verdicts.
    assert headlines(report)[0] == headlines(full)[0]
    assert headlines(report)[2] == headlines(full)[2]


def test_null_percentiles_and_missing_samples(full: Report) -> None:
    assert full.latency_ms is not None
    few = LatencySummary(n=4, mean=1.5, samples=[1.0, 2.0, 1.5, 1.5])
    latency = msgspec.structs.replace(full.latency_ms, base=few, bundle=LatencySummary(n=1, mean=0.5))
    speedup = msgspec.structs.replace(latency.speedup, p50=None, p90=None, ci95=None)
    report = changed(full, latency_ms=msgspec.structs.replace(latency, speedup=speedup))
    page = Page(render_html(report))
    check(page)
    assert headlines(report)[1].figure == "n too small"
    assert page.text.count("n too small") >= 12


def test_hundreds_of_classes_fold_away_behind_the_worst_twelve(full: Report) -> None:
    classes = [
        ClassQuality(label=f"class {i} " + "x" * 200, precision=1.0, recall=1.0, f1=i / 500, rows=3)
        for i in reversed(range(500))
    ]
    quality = msgspec.structs.replace(full.quality, classes=classes)
    source = render_html(changed(full, quality=quality))
    check(Page(source))
    assert "The other 488 classes" in source
    before, after = source.split("The other 488 classes")
    assert "class 11 x" in before
    assert "class 12 x" not in before
    assert "class 499 x" in after
    assert "x" * 60 not in source


def test_a_gpu_brings_its_memory_counters(full: Report) -> None:
    machine = msgspec.structs.replace(full.machine, gpu="NVIDIA H200")
    text = Page(render_html(changed(full, machine=machine))).text
    assert "GPU at peak, by torch’s counter not measured not measured" in text
    assert "GPU at peak" not in Page(render_html(full)).text


def test_a_method_that_did_not_beat_the_head_is_told(full: Report) -> None:
    training = msgspec.structs.replace(full.training, handed_on="probe", best_epoch=None)
    assert "probe; lora did not beat it" in Page(render_html(changed(full, training=training))).text


def test_clip_keeps_short_texts_and_cuts_long_ones_at_a_word() -> None:
    assert clip("one\ttwo\n three\x00four") == "one two three four"
    assert clip("alpha beta gamma delta", 18) == "alpha beta gamma…"
    assert clip("x" * 30, 10) == "x" * 9 + "…"
    assert len(clip("漢" * 500, 140)) == 140
    # é as e with a combining accent: the letter goes with its mark.
    assert clip("abcdefghe\u0301xyz", 10) == "abcdefgh…"


def test_gap_shows_rounding_in_powers_of_ten() -> None:
    assert [gap(value) for value in (0.0, 1.9e-5, 0.25, 4.9, None, float("nan"))] == [
        "0.00", "1.9e−5", "0.25", "4.90", "not measured", "not measured",
    ]  # fmt: skip


def test_grid_keeps_holes(full: Report) -> None:
    first = GridCell(batch=8, tokens=16, base_ms=2.0, bundle_ms=1.0)
    second = GridCell(batch=1, tokens=64, base_ms=2.0, bundle_ms=1.0)
    assert grid([first, second]) == ([16, 64], [(1, [None, second]), (8, [first, None])])
    assert "not measured" in render_html(changed(full, grid_ms=[first, second]))


def test_gate_sentence_is_empty_without_terms(full: Report) -> None:
    assert gate_sentence(changed(full, gate={})) == ""
    assert gate_sentence(changed(full, gate={"when_open": "accept"})) == "Gate: when open accept."
