"""The choice on figures that are known by hand: ties, domination, budget, the front, and the sentence that says why."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from edgetune.benchmarks.prove.choice import (
    check_budget,
    dominated,
    gains,
    is_tie,
    on_front,
    over_budget,
    preference,
    quick_figures,
    why_chosen,
)
from edgetune.benchmarks.recipe import BudgetRecipe
from edgetune.benchmarks.stepwise.recipe import GenerationBudgetRecipe
from edgetune.benchmarks.timing.quick import QuickFigures
from edgetune.serve.errors import GateError
from edgetune.serve.report import CandidateReport, LatencySummary
from edgetune.tune.metrics import ACCURACY, MAE


def timed(p50, p90=None, cold=100.0, rss=50_000_000):
    summary = LatencySummary(n=120, mean=p50, p50=p50, p90=p90 or 2 * p50, samples=[p50] * 120)
    return QuickFigures(summary, cold, rss)


def candidate(scheme, value, p50, size=10, accepted=True, stopped_at=""):
    return CandidateReport(
        scheme=scheme, size_bytes=size, dtypes={}, value=value, drop=0.0, drop_interval=[0.0, 0.0], p_value=1.0,
        gate="pass" if accepted else "fail", accepted=accepted, reason="", bundle_bytes=size, stopped_at=stopped_at,
        latency_ms=None if p50 is None else LatencySummary(n=120, mean=p50, p50=p50),
    )  # fmt: skip


def test_the_fastest_first_and_within_a_tie_the_smaller():
    figures = {"big": timed(1.0), "small": timed(1.04), "slow": timed(2.0), "tiny": timed(2.05)}
    sizes = {"big": 90, "small": 20, "slow": 10, "tiny": 5}
    assert preference(figures, sizes) == ["small", "big", "tiny", "slow"]
    # Beyond a tie the smaller has to wait.
    assert preference({"big": timed(1.0), "small": timed(1.06)}, sizes) == ["big", "small"]
    assert preference({}, {}) == []
    # Of about the same size the one that loses less; a much larger one is left behind however good it is.
    alike, lengths = {name: timed(1.0) for name in ("a", "b", "c")}, {"a": 100, "b": 102, "c": 150}
    assert preference(alike, lengths) == ["a", "b", "c"]
    assert preference(alike, lengths, losses={"a": 0.005, "b": 0.001, "c": -0.01}) == ["b", "a", "c"]


def test_what_noise_may_have_made_is_a_tie_too():
    # One block of six is slow for both sides by turns: medians of 1.0 and 1.2 that no draw of blocks tells apart.
    def noisy(slow_blocks):
        samples = [value for block in range(6) for value in [2.0 if block in slow_blocks else 1.0] * 20]
        p50 = sorted(samples)[60]
        return QuickFigures(LatencySummary(n=120, mean=p50, p50=p50, samples=samples), 100.0, 10)

    quiet, loud = noisy({0, 1}), noisy({0, 1, 2, 3})
    assert (quiet.p50_ms, loud.p50_ms) == (1.0, 2.0)
    assert is_tie(loud, quiet)
    assert preference({"quiet": quiet, "loud": loud}, {"quiet": 20, "loud": 10}) == ["loud", "quiet"]
    assert not is_tie(timed(1.2), timed(1.0))


def test_dominated_is_slower_beyond_a_tie_and_larger():
    figures = {"a": timed(1.0), "b": timed(1.5), "c": timed(1.02)}
    sizes = {"a": 10, "b": 20, "c": 20}
    assert dominated("b", figures, sizes) == "a"
    assert dominated("c", figures, sizes) == ""
    assert dominated("a", figures, sizes) == ""


def test_on_a_busy_machine_the_smaller_is_preferred_and_no_time_shuts_out():
    busy = {name: replace(timed(p50), timing_valid=False) for name, p50 in {"big": 1.0, "small": 9.0}.items()}
    sizes = {"big": 90, "small": 20}
    assert preference(busy, sizes) == ["small", "big"]
    cascade = busy | dict.fromkeys(("static~small", "static~other"), busy["big"])
    sizes_too = sizes | {"static~small": 22, "static~other": 30}
    assert preference(cascade, sizes_too) == ["static~small", "small", "static~other", "big"]
    quick = busy | {"quick": replace(timed(0.1), timing_valid=False)}
    assert dominated("big", quick, sizes | {"quick": 5}) == ""
    assert over_budget(BudgetRecipe(p90_ms=0.1, cold_start_ms=1), quick_figures(1, busy["big"])) == ""
    assert over_budget(BudgetRecipe(rss_mb=1), quick_figures(1, busy["big"])) == "rss_mb is 50, the budget 1"
    candidates = [candidate("big", 0.9, 1.0, 90), candidate("small", 0.9, 9.0, 20)]
    unjudged = [msgspec.structs.replace(one, timing_valid=False) for one in candidates]
    assert why_chosen(unjudged, "small", BudgetRecipe()) == (
        "small won: it is the smallest of the 2 candidates that the gate let through; the machine was too busy to "
        "judge their speed."
    )


def test_what_is_over_the_budget_is_named_with_both_figures():
    budget = BudgetRecipe(size_mb=10, p90_ms=1.0, rss_mb=60, cold_start_ms=90)
    assert over_budget(budget, quick_figures(20_000_000, None)) == "size_mb is 20, the budget 10"
    said = over_budget(budget, quick_figures(5_000_000, timed(0.7)))
    assert said == "p90_ms is 1.4, the budget 1; cold_start_ms is 100, the budget 90"
    assert over_budget(BudgetRecipe(), quick_figures(10**12, timed(9.0))) == ""


def test_what_was_not_measured_meets_no_budget(tmp_path):
    unmeasured = over_budget(BudgetRecipe(rss_mb=60), quick_figures(5_000_000, timed(0.7, rss=None)))
    assert unmeasured == "rss_mb was not measured, the budget 60"
    check_budget("int8", BudgetRecipe(size_mb=10), {"size_mb": 9.0}, tmp_path)
    with pytest.raises(GateError, match="The int8 candidate is over budget: p90_ms was not measured, the budget 1"):
        check_budget("int8", BudgetRecipe(p90_ms=1), {"size_mb": 9.0}, tmp_path)


def test_what_has_to_be_reached_is_missed_from_below():
    budget = GenerationBudgetRecipe(tokens_per_second=100, size_mb=100)
    assert over_budget(budget, {"tokens_per_second": 120.0, "size_mb": 80.0}) == ""
    assert over_budget(budget, {"size_mb": 120.0, "tokens_per_second": 80.0}) == (
        "size_mb is 120, the budget 100; tokens_per_second is 80, the budget 100"
    )
    assert over_budget(budget, {"tokens_per_second": None}) == "tokens_per_second was not measured, the budget 100"


def test_the_front_holds_what_nobody_beats():
    shown = [candidate("exact", 0.95, 3.0), candidate("quick", 0.93, 1.0), candidate("worse", 0.92, 2.0)]
    shown.append(candidate("untimed", 0.99, None))
    assert on_front(shown, ACCURACY) == {"exact", "quick"}


def test_of_an_error_the_front_holds_the_smallest():
    shown = [candidate("exact", 0.92, 3.0), candidate("quick", 0.93, 1.0), candidate("worse", 0.95, 2.0)]
    assert on_front(shown, MAE) == {"exact", "quick"}


def test_the_sentence_says_why():
    some = [candidate("fused", 0.9, 4.0, 90), candidate("int8_dynamic", 0.9, 1.0, 20)]
    some.append(candidate("student3+int8_dynamic", 0.8, 0.5, 10, accepted=False, stopped_at="quality"))
    assert why_chosen(some, "int8_dynamic", BudgetRecipe()) == (
        "int8_dynamic won: it is the fastest of the 2 candidates that the gate let through (mean 1 ms among "
        "candidates in turn, 4.00 times faster than fused)."
    )
    tie = [candidate("fused", 0.9, 0.99, 90), candidate("int8_dynamic", 0.9, 1.0, 20)]
    assert "is a tie with the fastest" in why_chosen(tie, "int8_dynamic", BudgetRecipe())
    alone = why_chosen(some[1:], "int8_dynamic", BudgetRecipe(size_mb=30))
    assert alone.endswith("the only candidate that the gate let through and meets the budget (size_mb).")


def test_gains_follow_the_way_to_the_chosen_route():
    names = ["fp32", "fused", "int8_dynamic", "trimmed+int8_dynamic", "student3+trimmed+int8_dynamic", "int8_static"]
    some = [candidate(name, 0.9, 1.0 + place) for place, name in enumerate(names)]
    found = gains(some, "student3+trimmed+int8_dynamic", ["student3", "trimmed"])
    assert [one.part for one in found] == ["exported", "fused", "int8_dynamic", "trimmed", "student3"]
    assert [one.scheme for one in found] == names[:5]
    assert found[-1].p50_ms == pytest.approx(5.0)


def test_answers_without_neighbours_are_worth_a_tenth_of_the_time():
    sizes = {"dynamic": 10, "static": 11, "float": 40}
    near = {"dynamic": timed(1.0), "static": timed(1.09), "float": timed(3.0)}
    assert preference(near, sizes, {"dynamic"}) == ["static", "dynamic", "float"]
    assert dominated("static", near, sizes, {"dynamic"}) == ""
    assert dominated("static", near, sizes) == "dynamic"
    far = near | {"static": timed(1.12)}
    assert preference(far, sizes, {"dynamic"}) == ["dynamic", "static", "float"]
    assert dominated("static", far, sizes, {"dynamic"}) == "dynamic"
    # Of two that tie the smaller wins, but not at the price of neighbours.
    tied = {"dynamic": timed(1.0), "static": timed(1.0)}
    assert preference(tied, {"dynamic": 5, "static": 50}, {"dynamic"}) == ["static", "dynamic"]
    busy = {name: replace(one, timing_valid=False) for name, one in near.items()}
    assert preference(busy, sizes, {"dynamic"}) == ["dynamic", "static", "float"]
    assert preference(busy, sizes | {"dynamic": 10.5}, {"dynamic"}) == ["static", "dynamic", "float"]


def test_the_sentence_says_that_neighbours_decided():
    static, dynamic = candidate("int8_static", 0.9, 1.05), candidate("int8_dynamic", 0.9, 1.0)
    dynamic = msgspec.structs.replace(dynamic, batch_dependent=True)
    assert why_chosen([static, dynamic], "int8_static", BudgetRecipe()) == (
        "int8_static won: mean 1.05 ms among candidates in turn is near the fastest of the 2 candidates that the gate "
        "let through (int8_dynamic, 1 ms), whose answers depend on their neighbours in a batch."
    )
