"""The gate: pass, fail and inconclusive, and what the recipe makes of the last."""

import math
import re

import numpy as np
import pytest
from sklearn import metrics

from edgetune.benchmarks.prove.gate import judge, judge_answers, unless_changed
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.serve.errors import GateError, RecipeError
from edgetune.tune.metrics import ACCURACY, LABEL_MICRO_F1, MACRO_F1, MAE, MOST_RISE, PERPLEXITY


def verdict(rows, lost, gained=0, **recipe):
    """Judge a candidate that loses and gains so many of `rows` answers against a reference that is right elsewhere."""
    expected = np.zeros(rows, dtype=np.int64)
    reference, candidate = expected.copy(), expected.copy()
    candidate[:lost] = 1
    reference[lost : lost + gained] = 1
    return judge_answers(ACCURACY, expected, reference, candidate, GateRecipe(**recipe))


def test_pass_where_the_whole_interval_is_within_the_limit():
    found = verdict(4000, 10, 2)
    assert (found.gate, found.accepted, found.rows_needed) == ("pass", True, None)
    assert found.loss.loss == pytest.approx(0.002)
    assert found.reason.startswith("accuracy drop +0.20 points, 95% interval ")
    assert found.reason.endswith(", allowed 1.00")


def test_fail_where_the_whole_interval_is_above_it():
    found = verdict(1000, 60)
    assert (found.gate, found.accepted) == ("fail", False)
    assert found.loss.interval[0] > 0.01


@pytest.mark.parametrize(("policy", "accepted"), [("accept", True), ("reject", False)])
def test_too_few_rows_are_inconclusive_and_the_recipe_decides(policy, accepted):
    found = verdict(50, 0, when_inconclusive=policy)
    assert (found.gate, found.accepted, found.rows_needed) == ("inconclusive", accepted, 381)
    assert "50 rows cannot settle it, about 381 would" in found.reason
    assert f"(gate.when_inconclusive: {policy})" in found.reason


def test_so_many_rows_as_it_asked_for_settle_it():
    assert verdict(381, 0).gate == "pass"
    assert verdict(380, 0).gate == "inconclusive"


def test_a_measured_drop_above_the_limit_is_rejected_whatever_the_recipe_says():
    found = verdict(50, 1, when_inconclusive="accept")
    assert (found.gate, found.accepted) == ("inconclusive", False)
    assert found.reason.endswith("; rejected, since the measured drop itself is above the limit")


def test_a_better_candidate_passes():
    found = verdict(500, 0, 20)
    assert (found.gate, found.accepted) == ("pass", True)
    assert found.loss.loss == pytest.approx(-0.04)


def test_a_drop_at_the_very_limit_says_of_no_number_of_rows_that_it_would_do():
    found = verdict(100, 1)
    assert (found.gate, found.accepted, found.rows_needed) == ("inconclusive", True, None)
    assert "would" not in found.reason


def test_no_drop_at_all_is_allowed_and_none_is_measured():
    found = verdict(1000, 0, max_drop=0)
    assert (found.gate, found.accepted, found.rows_needed) == ("inconclusive", True, None)


def test_a_lower_confidence_settles_sooner():
    assert verdict(300, 0).gate == "inconclusive"
    assert verdict(300, 0, confidence=0.9).gate == "pass"


def test_a_float_graph_with_the_same_answers_has_no_loss_to_prove():
    same = verdict(50, 0)
    assert unless_changed(same).reason == "the same answers as the tuned model on every row"
    assert (unless_changed(same).gate, unless_changed(same).accepted) == ("pass", True)
    assert unless_changed(verdict(50, 1, 1)).gate == "inconclusive"
    assert unless_changed(verdict(1000, 60)).gate == "fail"


def test_parts_taken_away_are_rejected_where_nothing_is_proven():
    expected = np.zeros(50, dtype=np.int64)
    judged = judge_answers(ACCURACY, expected, expected, expected, GateRecipe(), structural=True)
    assert (judged.gate, judged.accepted) == ("inconclusive", False)
    assert judged.reason.endswith("; rejected (gate.when_inconclusive: auto)")


def test_answers_that_turn_count_for_agreement_though_none_is_right():
    expected, reference = np.zeros(4000, dtype=np.int64), np.tile([0, 1], 2000)
    candidate = np.where(reference == 1, 2, 0)
    assert judge_answers(ACCURACY, expected, reference, candidate, GateRecipe()).gate == "pass"
    disagreeing = judge_answers(ACCURACY, expected, reference, candidate, GateRecipe(min_agreement=0.6))
    assert (disagreeing.gate, disagreeing.accepted) == ("fail", False)
    assert disagreeing.reason.endswith("; agreement 50.00%, at least 60% is required")


def test_a_class_that_only_the_candidate_answers_is_no_other_shape():
    expected, reference = np.tile([0, 1], 200), np.tile([0, 1], 200)
    candidate = np.where(np.arange(400) < 40, 5, reference)
    judged = judge_answers(MACRO_F1, expected, reference, candidate, GateRecipe())
    assert judged.gate == "fail"
    assert judged.loss.loss == pytest.approx(1 - MACRO_F1.of(expected, candidate))
    assert judged.reason.startswith("macro_f1 drop +5.")


def test_a_few_rows_all_answered_alike_prove_no_score():
    expected = np.tile([0, 1, 2], 5)
    judged = judge_answers(MACRO_F1, expected, expected, expected, GateRecipe())
    assert (judged.gate, judged.accepted, judged.rows_needed) == ("inconclusive", True, 381)
    assert unless_changed(judged).gate == "pass"


def test_of_several_labels_a_row_agrees_as_a_whole():
    expected = np.tile([[True, False], [True, True]], (200, 1))
    candidate = expected.copy()
    candidate[:2, 1] = ~candidate[:2, 1]
    judged = judge_answers(LABEL_MICRO_F1, expected, expected, candidate, GateRecipe(min_agreement=0.996))
    assert judged.gate == "fail"
    assert judged.reason.endswith("agreement 99.50%, at least 99.6% is required")


def test_the_mean_error_of_numbers_rises_in_percent():
    expected = np.zeros(300)
    reference = np.random.default_rng(0).uniform(1, 3, 300)
    judged = judge_answers(MAE, expected, reference, 1.05 * reference, GateRecipe())
    assert judged.gate == "fail"
    assert judged.loss.loss == pytest.approx(0.05)
    assert ", rise +5.00%, 95% interval +5.00% to +5.00%, allowed 2%" in judged.reason
    assert judge_answers(MAE, expected, reference, 1.05 * reference, GateRecipe(max_rise=0.06)).gate == "pass"
    with pytest.raises(GateError, match="was not measured"):
        judge_answers(MAE, expected, reference, reference, GateRecipe(min_agreement=0.5))


def test_a_reference_without_any_error_leaves_no_rise_to_allow():
    judged = judge_answers(MAE, np.zeros(30), np.zeros(30), np.full(30, 1e-3), GateRecipe())
    assert (judged.gate, judged.loss.loss, judged.loss.interval) == ("fail", MOST_RISE, (MOST_RISE, MOST_RISE))


@pytest.mark.parametrize(
    ("metric", "recipe", "message"),
    [
        (ACCURACY, GateRecipe(max_rise=0.1), "gate.max_rise is 0.1, but the gate's metric accuracy is a score"),
        (MAE, GateRecipe(max_drop=0.1), "gate.max_drop is 0.1, but the gate's metric mae is an error"),
    ],
)
def test_a_limit_that_would_hold_for_nothing_is_refused(metric, recipe, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        recipe.limit(metric)


def test_the_terms_that_hold_are_those_of_the_metric():
    assert GateRecipe().as_used(MAE) == {
        "metric": "mae", "max_rise": 0.02, "min_agreement": 0.0, "confidence": 0.95, "when_inconclusive": "auto",
        "rows": 4000,
    }  # fmt: skip
    assert "max_drop" in GateRecipe().as_used(ACCURACY)
    assert "max_rise" not in GateRecipe().as_used(ACCURACY)


@pytest.mark.parametrize("rows", [0, 9])
def test_other_rows_are_refused(rows):
    with pytest.raises(GateError, match="the same rows of both, at least one"):
        judge(PERPLEXITY, sums([1.0] * 9)[:rows], sums([1.0] * 10)[: rows + bool(rows)], GateRecipe())


def test_a_perplexity_beyond_all_numbers_is_no_verdict():
    with pytest.raises(GateError, match="perplexity of the candidate is no finite number over all 10 rows"):
        judge(PERPLEXITY, sums([1.0] * 10), sums([1e5] * 10), GateRecipe())


# Rises of perplexity.


def sums(nats, tokens=None):
    """Perplexity's statistics of as many rows, of 10 tokens each where nothing else is said."""
    nats = np.asarray(nats, dtype=np.float64)
    return PERPLEXITY.rows(np.full(len(nats), 10) if tokens is None else np.asarray(tokens), nats)


def rise(rises, *, rows=400, scatter=0.0, agreement=None, looks=1, **recipe):
    """Judge a candidate whose rows rise by `rises` nats a token, half of them `scatter` more and half less."""
    reference = sums(np.full(rows, 15.0))
    moved = rises + scatter * np.where(np.arange(rows) % 2, 1, -1)
    candidate = sums(15.0 + 10 * moved)
    return judge(PERPLEXITY, reference, candidate, GateRecipe(**recipe), agreement=agreement, looks=looks)


def test_the_same_sums_rise_by_nothing_and_pass_whatever_is_allowed():
    found = rise(0.0, rows=2, max_rise=0, when_inconclusive="reject")
    assert (found.gate, found.accepted, found.loss.loss, found.loss.interval) == ("pass", True, 0.0, (0.0, 0.0))
    assert found.reason == "the same perplexity as the tuned model on every row"


def test_the_rise_is_that_of_perplexity_over_all_tokens():
    # 2 nats more on 10 tokens and none on 90: exp(2/100) - 1, however the rows are cut.
    reference = sums([20.0, 180.0], [10, 90])
    found = judge(PERPLEXITY, reference, sums([22.0, 180.0], [10, 90]), GateRecipe())
    assert found.loss.loss == pytest.approx(math.expm1(0.02))
    assert PERPLEXITY.value(reference.sum(axis=0)) == pytest.approx(math.e**2)


def test_rise_pass_where_the_whole_interval_is_within_the_limit():
    found = rise(0.005, scatter=0.05)
    assert (found.gate, found.accepted, found.rows_needed) == ("pass", True, None)
    assert found.loss.loss == pytest.approx(math.expm1(0.005))
    assert 0 < found.loss.interval[0] < found.loss.loss < found.loss.interval[1] < 0.02
    assert found.reason.startswith("perplexity 4.504 instead of 4.482, rise +0.50%, 95% interval +0.")
    assert found.reason.endswith(", allowed 2%")


def test_rise_fail_where_the_whole_interval_is_above_it():
    found = rise(0.05, scatter=0.1, when_inconclusive="accept")
    assert (found.gate, found.accepted) == ("fail", False)
    assert found.loss.interval[0] > 0.02


@pytest.mark.parametrize(("policy", "accepted"), [("accept", True), ("reject", False)])
def test_rise_too_few_rows_are_inconclusive_and_the_recipe_decides(policy, accepted):
    found = rise(0.01, rows=20, scatter=0.1, when_inconclusive=policy)
    assert (found.gate, found.accepted) == ("inconclusive", accepted)
    assert found.rows_needed > 20
    assert f"; 20 rows cannot settle it, about {found.rows_needed:,} would; " in found.reason
    assert found.reason.endswith(f"(gate.when_inconclusive: {policy})")


def test_rise_so_many_rows_as_it_asked_for_settle_it():
    needed = rise(0.01, rows=20, scatter=0.1).rows_needed
    assert rise(0.01, rows=2 * math.ceil(1.1 * needed / 2), scatter=0.1).gate == "pass"
    assert rise(0.01, rows=2 * math.ceil(0.8 * needed / 2), scatter=0.1).gate == "inconclusive"


def test_a_measured_rise_above_the_limit_is_rejected_whatever_the_recipe_says():
    found = rise(0.03, rows=20, scatter=0.1, when_inconclusive="accept")
    assert (found.gate, found.accepted) == ("inconclusive", False)
    assert found.reason.endswith("; rejected, since the measured rise itself is above the limit")


@pytest.mark.parametrize(("max_rise", "gate"), [(0.02, "pass"), (0.0199999, "fail")])
def test_a_rise_at_the_very_limit_passes(max_rise, gate):
    assert rise(math.log(1.02) - 1e-12, max_rise=max_rise).gate == gate


def test_rise_a_better_candidate_passes_even_where_nothing_is_allowed():
    found = rise(-0.05, scatter=0.02, max_rise=0)
    assert (found.gate, found.accepted) == ("pass", True)
    assert found.loss.interval[1] < 0


def test_rows_too_few_for_any_interval_are_inconclusive_though_they_scatter_little():
    assert rise(0.0001, rows=5).gate == "inconclusive"
    assert rise(0.0001, rows=6).gate == "pass"
    assert rise(0.5, rows=1).gate == "inconclusive"


def test_rise_a_lower_confidence_settles_sooner():
    assert rise(0.015, rows=100, scatter=0.026).gate == "inconclusive"
    assert rise(0.015, rows=100, scatter=0.026, confidence=0.9).gate == "pass"


def test_every_look_widens_the_interval():
    first, second = (rise(0.01, scatter=0.05, looks=looks) for looks in (1, 2))
    assert second.loss.interval[0] < first.loss.interval[0]
    assert first.loss.interval[1] < second.loss.interval[1]
    assert second.loss.interval == rise(0.01, scatter=0.05, confidence=0.975).loss.interval
    assert "97.5% interval" in second.reason
    assert rise(0.015, rows=100, scatter=0.019, looks=1).gate == "pass"
    assert rise(0.015, rows=100, scatter=0.019, looks=10).gate == "inconclusive"


@pytest.mark.parametrize(("agreement", "gate", "accepted"), [(0.985, "pass", True), (0.9849, "fail", False)])
def test_agreement_is_a_second_condition(agreement, gate, accepted):
    found = rise(0.001, agreement=agreement, min_agreement=0.985)
    assert (found.gate, found.accepted) == (gate, accepted)
    assert f"agreement {100 * agreement:.2f}%, at least 98.5% is required" in found.reason
    assert rise(0.0, agreement=agreement, min_agreement=0.985).gate == gate


def test_agreement_rescues_no_candidate_and_is_not_told_where_it_is_not_asked_for():
    assert rise(0.05, agreement=1.0, min_agreement=0.9).gate == "fail"
    assert "agreement" not in rise(0.001, agreement=0.2).reason


def test_an_agreement_that_was_not_measured_is_no_agreement():
    with pytest.raises(GateError, match="was not measured"):
        rise(0.001, min_agreement=0.9)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_sum_that_is_no_number_is_told_with_its_row(broken):
    nats = np.full(10, 15.0)
    nats[3] = broken
    with pytest.raises(
        GateError, match="perplexity of the candidate is no finite number on 1 of 10 rows; the first is row 3"
    ):
        judge(PERPLEXITY, sums(np.full(10, 15.0)), sums(nats), GateRecipe())


def uneven(lost, rows=2000, rare=100):
    """A verdict on one that loses so many rows of a rare class, by accuracy and macro F1 beside it."""
    expected = np.repeat([0, 1], [rows - rare, rare])
    candidate = expected.copy()
    candidate[rows - lost :] = 0
    return expected, candidate, judge_answers(ACCURACY, expected, expected, candidate, GateRecipe(), second=MACRO_F1)


def test_what_a_rare_class_loses_fails_by_macro_f1_where_accuracy_passes():
    expected, candidate, judged = uneven(12, rows=4000)
    assert judge_answers(ACCURACY, expected, expected, candidate, GateRecipe()).gate == "pass"
    assert (judged.gate, judged.accepted, judged.rows_needed) == ("fail", False, None)
    assert judged.loss.loss == pytest.approx(0.003)
    drop = 1 - metrics.f1_score(expected, candidate, average="macro")
    assert judged.second.metric == "macro_f1"
    assert judged.second.value == pytest.approx(1 - drop)
    assert judged.second.drop == pytest.approx(drop)
    assert judged.second.drop_interval[0] < drop < judged.second.drop_interval[1]
    assert judged.second.gate == "fail"
    assert judged.reason.startswith("accuracy drop +0.30 points")
    assert f"; macro_f1 drop +{100 * drop:.2f} points" in judged.reason


def test_both_metrics_have_to_pass():
    _, _, judged = uneven(0)
    assert (judged.gate, judged.accepted, judged.second.gate, judged.second.drop) == ("pass", True, "pass", 0)


def test_a_second_metric_that_is_open_leaves_the_verdict_open():
    expected, candidate, judged = uneven(2)
    assert judge_answers(ACCURACY, expected, expected, candidate, GateRecipe()).gate == "pass"
    assert (judged.gate, judged.accepted, judged.second.gate) == ("inconclusive", True, "inconclusive")
    assert judged.rows_needed > 2000
    few = judge_answers(ACCURACY, expected, expected, candidate, GateRecipe(), second=MACRO_F1, structural=True)
    assert (few.gate, few.accepted) == ("inconclusive", False)


def test_a_float_graph_with_the_same_answers_passes_by_both():
    expected = np.repeat([0, 1], [38, 2])
    judged = judge_answers(
        ACCURACY, expected, expected, expected, GateRecipe(min_agreement=0.9), second=MACRO_F1, is_float=True
    )
    assert (judged.gate, judged.second.gate) == ("pass", "pass")
