"""Figures of a generation race, on samples whose medians are known by hand."""

from __future__ import annotations

import msgspec
import pytest

from edgetune.benchmarks.stepwise.figures import RaceFigures, SideFigures, agreement, compared, decoding
from edgetune.benchmarks.stepwise.llama_cpp import engine_notes
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.report import Memory

BASE = SideFigures(
    side="base",
    first_ms={16: [30.0, 10.0, 20.0]},
    step_ms={1: [20.0, 10.0, 30.0], 4: [40.0, 40.0, 40.0]},
    memory=Memory(rss_peak_bytes=800),
    cold_start_ms=[3000.0, 1000.0, 2000.0],
    size_bytes=400,
    answer=[5, 6, 7, 8],
)
BUNDLE = SideFigures(
    side="bundle",
    first_ms={16: [4.0, 2.0, 3.0]},
    step_ms={1: [2.0, 1.0, 3.0]},
    memory=Memory(rss_peak_bytes=200),
    cold_start_ms=[90.0],
    size_bytes=60,
    answer=[5, 6, 9, 8],
)


def figures(**sides: SideFigures) -> RaceFigures:
    return RaceFigures(
        sides=sides,
        prompt_tokens=[16, 128],
        batches=[1, 4],
        decode_prompt_tokens=16,
        new_tokens=3,
        rounds=3,
        threads=1,
    )


def test_rates_are_those_of_the_median_round():
    assert BASE.first_token_ms(16) == 20.0
    assert BASE.tokens_per_second(1) == 50.0
    # Four rows advance in each step.
    assert BASE.tokens_per_second(4) == 100.0
    assert BASE.cold_ms == 2000.0


def test_what_was_not_measured_is_none():
    assert BASE.first_token_ms(128) is None
    assert BUNDLE.tokens_per_second(4) is None
    assert SideFigures(side="none").cold_ms is None


def test_two_sides_as_the_report_has_them():
    found = compared(figures(base=BASE, bundle=BUNDLE), "base", "bundle")
    assert [(one.prompt_tokens, one.base_ms, one.bundle_ms) for one in found.first_token_ms] == [
        (16, 20.0, 3.0),
        (128, None, None),
    ]
    single, batched = found.decoding
    assert (single.batch, single.base_per_second, single.bundle_per_second) == (1, 50.0, 500.0)
    assert single.speedup == pytest.approx(10.0)
    # Every round is ten times faster, so every draw of rounds is too.
    assert single.ci95 == pytest.approx([10.0, 10.0])
    assert (batched.base_per_second, batched.bundle_per_second, batched.speedup, batched.ci95) == (
        100,
        None,
        None,
        None,
    )
    assert (found.memory.base.rss_peak_bytes, found.memory.bundle.rss_peak_bytes) == (800, 200)
    assert (found.cold_start_ms.base, found.cold_start_ms.bundle) == (2000.0, 90.0)
    assert (found.size_bytes.base, found.size_bytes.bundle) == (400, 60)


def test_a_side_that_ended_is_not_told_as_unmeasured():
    ended = msgspec.structs.replace(BUNDLE, reason="out of memory")
    with pytest.raises(EdgetuneError, match="out of memory"):
        compared(figures(base=BASE, bundle=ended), "base", "bundle")


def test_the_interval_pairs_rounds():
    # Both sides are three times slower in the third round; the ratio does not see it.
    slow = decoding(
        SideFigures(side="a", step_ms={1: [10.0, 10.0, 30.0]}), SideFigures(side="b", step_ms={1: [5.0, 5.0, 15.0]}), 1
    )
    assert slow.speedup == pytest.approx(2.0)
    assert slow.ci95 == pytest.approx([2.0, 2.0])


def test_agreement_counts_up_to_the_first_difference():
    assert agreement(BUNDLE, BASE) == (2, 4)
    assert agreement(BASE, BASE) == (4, 4)
    assert agreement(SideFigures(side="none"), BASE) is None


def test_figures_survive_a_file():
    race = figures(base=BASE, bundle=BUNDLE)
    assert msgspec.json.decode(msgspec.json.encode(race), type=RaceFigures) == race


LLAMA_CPP = SideFigures(side="llama.cpp", first_ms={16: [9.0], 128: [7.0]}, step_ms={1: [4.0, 2.0, 6.0]}, answer=[5, 6])


def test_another_engine_stands_beside_the_bundle():
    (engine,) = compared(figures(base=BASE, bundle=BUNDLE, other=LLAMA_CPP), "base", "bundle").engines
    assert (engine.name, engine.tokens_per_second, engine.first_token_ms) == ("llama.cpp", 250.0, 7.0)
    assert (engine.bundle_speedup, engine.equal_tokens, engine.tokens) == (2.0, 2, 2)
    assert engine_notes([engine]) == [
        "On the same levels llama.cpp decodes 250 tokens a second, and the bundle 2.00 times as many: here the bundle "
        "is faster. `edgetune pack --layout gguf --weights bundle` writes its file."
    ]


def test_another_engine_that_failed_or_was_timed_on_a_busy_machine_has_no_ratio():
    failed = SideFigures(side="llama.cpp", reason="it ended with 1: no such file")
    (engine,) = compared(figures(base=BASE, bundle=BUNDLE, other=failed), "base", "bundle").engines
    assert engine_notes([engine]) == ["llama.cpp was not timed: it ended with 1: no such file"]
    busy = msgspec.structs.replace(figures(base=BASE, bundle=BUNDLE, other=LLAMA_CPP), timing_remark="others ran")
    (engine,) = compared(busy, "base", "bundle").engines
    assert (engine.bundle_speedup, engine.ci95, engine_notes([engine])) == (None, None, [])
