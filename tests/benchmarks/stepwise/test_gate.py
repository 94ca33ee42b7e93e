"""The gate of language models: its verdicts at the borders, and intervals that hold what they promise to hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgetune.benchmarks.stepwise.gate import (
    RowSums,
    judge_rise,
    rise_interval,
    rows_that_bound,
    rows_to_settle,
)
from edgetune.benchmarks.stepwise.recipe import GenerationGateRecipe
from edgetune.serve.errors import GateError


def sums(nats, tokens=None):
    """Row sums of as many rows, of 10 tokens each where nothing else is said."""
    nats = np.asarray(nats, dtype=np.float64)
    return RowSums(nats, np.full(len(nats), 10) if tokens is None else np.asarray(tokens, dtype=np.int64))


def verdict(rises, *, rows=400, scatter=0.0, agreement=None, looks=1, **recipe):
    """Judge a candidate whose rows rise by `rises` nats a token, half of them `scatter` more and half less."""
    reference = sums(np.full(rows, 15.0))
    moved = rises + scatter * np.where(np.arange(rows) % 2, 1, -1)
    candidate = sums(reference.nats + 10 * moved)
    return judge_rise(reference, candidate, GenerationGateRecipe(**recipe), agreement=agreement, looks=looks)


def test_the_same_sums_rise_by_nothing_and_pass_whatever_is_allowed():
    found = verdict(0.0, rows=2, max_rise=0, when_inconclusive="reject")
    assert (found.gate, found.accepted, found.rise, found.interval) == ("pass", True, 0.0, (0.0, 0.0))
    assert found.reason == "the same probability as by the tuned model for every row"


def test_the_rise_is_that_of_perplexity_over_all_tokens():
    # 2 nats more on 10 tokens and none on 90: exp(2/100) - 1, however the rows are cut.
    reference = sums([20.0, 180.0], [10, 90])
    found = judge_rise(reference, sums([22.0, 180.0], [10, 90]), GenerationGateRecipe())
    assert found.rise == pytest.approx(math.expm1(0.02))
    assert reference.perplexity == pytest.approx(math.e**2)


def test_pass_where_the_whole_interval_is_within_the_limit():
    found = verdict(0.005, scatter=0.05)
    assert (found.gate, found.accepted, found.rows_needed) == ("pass", True, None)
    assert found.rise == pytest.approx(math.expm1(0.005))
    assert 0 < found.interval[0] < found.rise < found.interval[1] < 0.02
    assert found.reason.startswith("perplexity 4.504 instead of 4.482, rise +0.50%, 95% interval +0.")
    assert found.reason.endswith(", allowed 2%")


def test_fail_where_the_whole_interval_is_above_it():
    found = verdict(0.05, scatter=0.1, when_inconclusive="accept")
    assert (found.gate, found.accepted) == ("fail", False)
    assert found.interval[0] > 0.02


@pytest.mark.parametrize(("policy", "accepted"), [("accept", True), ("reject", False)])
def test_too_few_rows_are_inconclusive_and_the_recipe_decides(policy, accepted):
    found = verdict(0.01, rows=20, scatter=0.1, when_inconclusive=policy)
    assert (found.gate, found.accepted) == ("inconclusive", accepted)
    assert found.rows_needed > 20
    assert f"; 20 rows cannot settle it, about {found.rows_needed:,} would; " in found.reason
    assert found.reason.endswith(f"(gate.when_inconclusive: {policy})")


def test_so_many_rows_as_it_asked_for_settle_it():
    needed = verdict(0.01, rows=20, scatter=0.1).rows_needed
    assert verdict(0.01, rows=2 * math.ceil(1.1 * needed / 2), scatter=0.1).gate == "pass"
    assert verdict(0.01, rows=2 * math.ceil(0.8 * needed / 2), scatter=0.1).gate == "inconclusive"


def test_a_measured_rise_above_the_limit_is_rejected_whatever_the_recipe_says():
    found = verdict(0.03, rows=20, scatter=0.1, when_inconclusive="accept")
    assert (found.gate, found.accepted) == ("inconclusive", False)
    assert found.reason.endswith("; rejected, since the measured rise itself is above the limit")


@pytest.mark.parametrize(("max_rise", "gate"), [(0.02, "pass"), (0.0199999, "fail")])
def test_a_rise_at_the_very_limit_passes(max_rise, gate):
    assert verdict(math.log(1.02) - 1e-15, max_rise=max_rise).gate == gate


def test_a_better_candidate_passes_even_where_nothing_is_allowed():
    found = verdict(-0.05, scatter=0.02, max_rise=0)
    assert (found.gate, found.accepted) == ("pass", True)
    assert found.interval[1] < 0


def test_rows_too_few_for_any_interval_are_inconclusive_though_they_scatter_little():
    assert verdict(0.0001, rows=5).gate == "inconclusive"
    assert verdict(0.0001, rows=6).gate == "pass"
    assert verdict(0.5, rows=1).gate == "inconclusive"


@pytest.mark.parametrize(("confidence", "rows"), [(0.75, 3), (0.9, 5), (0.95, 6), (0.99, 8)])
def test_the_extremes_of_so_many_rows_bound_their_middle(confidence, rows):
    assert rows_that_bound(confidence) == rows
    assert 1 - 2.0 ** (1 - rows) >= confidence > 1 - 2.0 ** (2 - rows)


def test_a_lower_confidence_settles_sooner():
    assert verdict(0.015, rows=100, scatter=0.026).gate == "inconclusive"
    assert verdict(0.015, rows=100, scatter=0.026, confidence=0.9).gate == "pass"


def test_every_look_widens_the_interval():
    first, second = (verdict(0.01, scatter=0.05, looks=looks) for looks in (1, 2))
    assert second.interval[0] < first.interval[0]
    assert first.interval[1] < second.interval[1]
    assert second.interval == verdict(0.01, scatter=0.05, confidence=0.975).interval
    assert "97.5% interval" in second.reason
    assert verdict(0.015, rows=100, scatter=0.019, looks=1).gate == "pass"
    assert verdict(0.015, rows=100, scatter=0.019, looks=10).gate == "inconclusive"


@pytest.mark.parametrize(("agreement", "gate", "accepted"), [(0.985, "pass", True), (0.9849, "fail", False)])
def test_agreement_is_a_second_condition(agreement, gate, accepted):
    found = verdict(0.001, agreement=agreement, min_agreement=0.985)
    assert (found.gate, found.accepted) == (gate, accepted)
    assert f"{100 * agreement:.2f}% of tokens agree, 98.5% must" in found.reason
    assert verdict(0.0, agreement=agreement, min_agreement=0.985).gate == gate


def test_agreement_rescues_no_candidate_and_is_not_told_where_it_is_not_asked_for():
    assert verdict(0.05, agreement=1.0, min_agreement=0.9).gate == "fail"
    assert "agree" not in verdict(0.001, agreement=0.2).reason


def test_an_agreement_that_was_not_measured_is_no_agreement():
    with pytest.raises(GateError, match="was not measured"):
        verdict(0.001, min_agreement=0.9)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_sum_that_is_no_number_is_told_with_its_row(broken):
    nats = np.full(10, 15.0)
    nats[3] = broken
    with pytest.raises(GateError, match="the candidate gives 1 of 10 rows is no finite number; the first is row 3"):
        judge_rise(sums(np.full(10, 15.0)), sums(nats), GenerationGateRecipe())


@pytest.mark.parametrize("other", [sums([1.0] * 9), sums([1.0] * 10, range(1, 11))])
def test_other_rows_are_refused(other):
    with pytest.raises(GateError, match="the same rows and tokens"):
        judge_rise(sums([1.0] * 10), other, GenerationGateRecipe())


def test_no_rows_are_refused():
    with pytest.raises(GateError, match="at least one"):
        judge_rise(sums([]), sums([]), GenerationGateRecipe())


def test_the_same_rows_are_judged_the_same_twice():
    random = np.random.default_rng(1)
    differences, tokens = random.normal(0.1, 1, 60), random.integers(5, 200, 60)
    assert rise_interval(differences, tokens, 0.95) == rise_interval(differences, tokens, 0.95)
    assert rise_interval(differences, tokens, 0.95) != rise_interval(differences, tokens, 0.95, seed=1)


def test_a_wild_row_pulls_the_interval_to_its_side():
    differences = np.full(100, 0.01)
    differences[0] = 5.0
    low, high = rise_interval(differences, np.full(100, 10), 0.95)
    rise = math.expm1(differences.sum() / 1000)
    assert high - rise > 2 * (rise - low) > 0


@pytest.mark.parametrize("skewed", [False, True], ids=["normal", "skewed"])
def test_the_interval_holds_the_rise_as_often_as_it_says(skewed):
    """Rows of 5 to 200 tokens whose nats differ by 0.01 a token on average; 200 draws of 60 rows."""
    random, truth, rows = np.random.default_rng(7), 0.01, 60
    held = 0
    for _ in range(200):
        tokens = random.integers(5, 200, rows)
        noise = random.exponential(1, rows) - 1 if skewed else random.normal(0, 1, rows)
        differences = truth * tokens + 0.1 * np.sqrt(tokens) * noise
        low, high = rise_interval(differences, tokens, 0.9)
        held += low <= math.expm1(truth) <= high
    # 180 are expected; four standard deviations of a binomial are 17.
    assert 163 <= held <= 197


def test_a_rise_at_the_limit_is_never_settled():
    assert rows_to_settle(np.full(10, 0.1), np.full(10, 10), math.expm1(0.01), 0.95) is None
