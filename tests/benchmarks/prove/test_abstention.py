"""Thresholds below which answers are unsure: what is guaranteed holds, and figures by values known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from edgetune.benchmarks.prove.abstention import (
    GRID,
    Confident,
    answered_rows,
    area_under_roc,
    balanced_threshold,
    exact_interval,
    fewest_rows,
    guaranteed_thresholds,
    risk_curve,
    surely_above,
)


def drawn(rows: int, random: np.random.Generator) -> Confident:
    """Answers that are right with the square root of their probability: of uniform ones (1 - t) are answered."""
    confidence = random.random(rows)
    return Confident(confidence, random.random(rows) < np.sqrt(confidence))


def risk(threshold: float) -> float:
    """The share of wrong answers among those of `drawn` at a threshold."""
    return float(1 - (2 / 3) * (1 - threshold**1.5) / (1 - threshold)) if threshold < 1 else 0.0


def test_what_is_guaranteed_holds_as_often_as_it_says():
    """Every threshold that is returned, the lowest above all: in at most 10% of the draws one does not hold."""
    random, broken, returned = np.random.default_rng(5), 0, 0
    for _ in range(200):
        thresholds = guaranteed_thresholds(drawn(400, random), drawn(100, random), 0.12, 0.9)
        returned += bool(thresholds)
        broken += any(risk(threshold) > 0.12 for threshold in thresholds)
    assert returned > 100  # it is not silence that keeps the word
    assert broken <= stats.binom.ppf(0.999, 200, 0.1)


def test_a_walk_begins_where_the_pilot_hopes_and_ends_at_the_first_failure():
    confidence = np.repeat([0.995, 0.9, 0.7, 0.4], 200)
    right = np.array([True] * 400 + [False] * 20 + [True] * 180 + [False] * 200)
    rows = Confident(confidence, right)
    thresholds = guaranteed_thresholds(rows, rows, 0.06, 0.95)
    # 400 right ones from 0.9 on; down to 0.7 there are 20 wrong of 600, p = 0.002; the last 200 break it.
    assert thresholds[0] == 0.995
    assert thresholds[-1] == 0.41
    assert thresholds == list(GRID[GRID.index(thresholds[0]) : GRID.index(0.41) + 1])


@pytest.mark.parametrize("rows", [1, 20, 148])
def test_nothing_is_guaranteed_of_few_rows(rows):
    perfect = Confident(np.full(rows, 0.9), np.ones(rows, dtype=bool))
    assert guaranteed_thresholds(perfect, perfect, 0.02, 0.95) == []


def test_so_many_rows_are_enough_if_all_are_right():
    assert fewest_rows(0.02, 0.95) == 149
    perfect = Confident(np.full(149, 0.9), np.ones(149, dtype=bool))
    assert guaranteed_thresholds(perfect, perfect, 0.02, 0.95)[-1] == 0.0


def test_a_pilot_without_rows_begins_at_the_top():
    nothing, perfect = (
        Confident(np.zeros(0), np.zeros(0, dtype=bool)),
        Confident(np.ones(149), np.ones(149, dtype=bool)),
    )
    assert guaranteed_thresholds(perfect, nothing, 0.02, 0.95) == list(GRID)


def test_nothing_is_guaranteed_where_all_is_wrong():
    wrong = Confident(np.linspace(0.1, 1, 300), np.zeros(300, dtype=bool))
    assert guaranteed_thresholds(wrong, wrong, 0.02, 0.95) == []


def test_both_sides_are_served():
    rows = Confident(np.array([0.2, 0.6, 0.8, 0.9]), np.array([False, True, True, True]))
    outside = np.array([0.1, 0.3, 0.5, 0.85])
    # From 0.51 to 0.6 three of four rows are answered rightly and three of four texts are unsure; the lowest is taken.
    assert balanced_threshold(rows, outside, GRID) == 0.51
    assert balanced_threshold(rows, outside, [0.9, 0.8]) == 0.8
    assert balanced_threshold(rows, np.array([0.01]), GRID) == 0.02


def test_texts_out_of_scope_do_not_silence_the_model():
    rows, outside = Confident(np.linspace(0.5, 1, 100), np.ones(100, dtype=bool)), np.full(50, 0.94)
    assert balanced_threshold(rows, outside, GRID) == 0.0  # at 0.95 and above less than half are answered
    assert balanced_threshold(rows, outside, [0.99, 0.97]) == 0.97  # none of which answers half


def test_answered_rows_by_hand():
    rows = Confident(np.array([0.5, 0.6, 0.7, 0.8]), np.array([False, False, True, True]))
    answers = answered_rows(rows, 0.6)
    assert (answers.n, answers.answered, answers.wrong, answers.coverage, answers.error) == (4, 3, 1, 0.75, 1 / 3)
    assert answers.coverage_ci95 == exact_interval(3, 4)
    assert answers.error_ci95 == exact_interval(1, 3)
    none = answered_rows(rows, 0.9)
    assert (none.answered, none.error, none.error_ci95, none.coverage_ci95[0]) == (0, None, None, 0.0)


def test_exact_intervals_are_clopper_and_pearson_s():
    low, high = exact_interval(3, 50)
    assert (low, high) == pytest.approx((stats.beta.ppf(0.025, 3, 48), stats.beta.ppf(0.975, 4, 47)))


def test_a_share_is_surely_above_where_chance_does_not_explain_it():
    rows = Confident(np.ones(100), np.arange(100) >= 10)
    assert surely_above(answered_rows(rows, 0.5), 0.02, 0.95)
    assert not surely_above(answered_rows(rows, 0.5), 0.08, 0.95)
    assert not surely_above(answered_rows(Confident(np.zeros(9), np.zeros(9, dtype=bool)), 0.5), 0.02, 0.95)


def test_the_curve_answers_equal_probabilities_together():
    rows = Confident(np.array([0.9, 0.9, 0.5, 0.7]), np.array([True, False, False, True]))
    curve = [(point.threshold, point.coverage, point.error) for point in risk_curve(rows)]
    assert curve == [(0.9, 0.5, 0.5), (0.7, 0.75, 1 / 3), (0.5, 1.0, 0.5)]
    many = risk_curve(Confident(np.linspace(0, 1, 5000), np.ones(5000, dtype=bool)))
    assert (len(many), many[-1].coverage) == (60, 1.0)


def test_the_area_is_scikit_learn_s():
    random = np.random.default_rng(0)
    inside, outside = random.random(50).round(1), (random.random(40) - 0.2).round(1)
    truth = roc_auc_score([1] * 50 + [0] * 40, np.concatenate([inside, outside]))
    assert area_under_roc(inside, outside) == pytest.approx(truth)
