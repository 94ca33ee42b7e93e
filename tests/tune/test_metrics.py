"""Metrics by sums of row statistics beside scikit-learn's, and what is lost from one value to another."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as scikit

from edgetune.tune.metrics import (
    ACCURACY,
    BALANCED_ACCURACY,
    LABEL_MACRO_F1,
    LABEL_MICRO_F1,
    MACRO_F1,
    MAE,
    MOST_RISE,
    PERPLEXITY,
    RMSE,
    SUBSET_ACCURACY,
)

RANDOM = np.random.default_rng(0)


def classes(seed: int, rows: int = 300, number: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Right and given classes; class 3 is never expected, class 5 never given."""
    random = np.random.default_rng(seed)
    expected = random.choice([0, 1, 2, 4, 5, 6][: number - 1], rows)
    answers = np.where(random.random(rows) < 0.7, expected, random.integers(0, number, rows))
    return expected, np.where(answers == 5, 0, answers)


def labels(seed: int, rows: int = 200, number: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    expected = random.random((rows, number)) < 0.3
    return expected, expected ^ (random.random((rows, number)) < 0.1)


@pytest.mark.parametrize("seed", range(3))
def test_of_classes(seed):
    expected, answers = classes(seed)
    there = np.unique(expected)
    assert ACCURACY.of(expected, answers) == pytest.approx(scikit.accuracy_score(expected, answers))
    macro = scikit.f1_score(expected, answers, labels=there, average="macro", zero_division=0)
    assert MACRO_F1.of(expected, answers) == pytest.approx(macro)
    recall = scikit.recall_score(expected, answers, labels=there, average="macro", zero_division=0)
    assert BALANCED_ACCURACY.of(expected, answers) == pytest.approx(recall)


def test_balanced_accuracy_is_scikits_own_name_for_it():
    expected, answers = classes(9, number=4)
    answers = np.where(answers == 3, 0, answers)  # scikit warns of a class that is answered and never expected
    assert BALANCED_ACCURACY.of(expected, answers) == pytest.approx(scikit.balanced_accuracy_score(expected, answers))


@pytest.mark.parametrize("seed", range(3))
def test_of_labels(seed):
    expected, answers = labels(seed)
    micro, macro = (scikit.f1_score(expected, answers, average=name) for name in ("micro", "macro"))
    assert LABEL_MICRO_F1.of(expected, answers) == pytest.approx(micro)
    assert LABEL_MACRO_F1.of(expected, answers) == pytest.approx(macro)
    assert SUBSET_ACCURACY.of(expected, answers) == pytest.approx(scikit.accuracy_score(expected, answers))


def test_of_numbers():
    expected, answers = RANDOM.normal(size=(2, 100))
    assert MAE.of(expected, answers) == pytest.approx(scikit.mean_absolute_error(expected, answers))
    assert RMSE.of(expected, answers) == pytest.approx(scikit.root_mean_squared_error(expected, answers))


def test_of_tokens():
    assert PERPLEXITY.of(np.asarray([10, 90]), np.asarray([20.0, 180.0])) == pytest.approx(np.exp(2))


@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1, BALANCED_ACCURACY])
def test_a_row_that_falls_twice_counts_twice(metric):
    expected, answers = classes(4)
    times = np.random.default_rng(5).integers(0, 4, len(expected))
    rows = np.repeat(np.arange(len(expected)), times)
    assert metric.value(times @ metric.rows(expected, answers)) == pytest.approx(
        metric.of(expected[rows], answers[rows])
    )


def test_values_of_many_sums_at_once():
    expected, answers = classes(6)
    statistics = MACRO_F1.rows(expected, answers)
    sums = np.stack([statistics.sum(axis=0), statistics[:100].sum(axis=0)])
    assert MACRO_F1.value(sums).tolist() == pytest.approx(
        [MACRO_F1.of(expected, answers), MACRO_F1.value(sums[1]).item()]
    )


def test_a_pair_has_as_many_statistics_of_both():
    expected, reference, candidate = np.asarray([0, 1]), np.asarray([0, 1]), np.asarray([0, 4])
    first, second = MACRO_F1.pair(expected, reference, candidate)
    assert first.shape == second.shape == (2, 15)
    assert MACRO_F1.value(first.sum(axis=0)) == 1.0
    assert MACRO_F1.value(second.sum(axis=0)) == MACRO_F1.of(expected, candidate) == 0.5


def test_scores_lose_points_and_errors_rise_by_a_share():
    values = np.asarray([0.9, 0.5]), np.asarray([0.88, 0.6])
    assert ACCURACY.loss(*values) == pytest.approx([0.02, -0.1])
    assert MAE.loss(*values) == pytest.approx([0.88 / 0.9 - 1, 0.2])


def test_a_rise_from_nothing_is_the_largest_there_is():
    rises = MAE.loss(np.asarray([0.0, 0.0, 1.0, np.inf]), np.asarray([0.0, 1e-9, np.inf, np.nan]))
    assert rises.tolist() == [0.0, MOST_RISE, MOST_RISE, MOST_RISE]
