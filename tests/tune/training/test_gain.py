"""Gains of one model over another on the same rows: value, standard error, and what counts as more than chance."""

import numpy as np
import pytest

from edgetune.tune.metrics import ACCURACY, LABEL_MICRO_F1, MACRO_F1, MAE
from edgetune.tune.training.gain import Gain, paired_gain


def answers(wins, losses, rows=100):
    """Expected answers, those of a reference and those of a candidate."""
    expected = np.zeros(rows, dtype=np.int64)
    reference, candidate = expected.copy(), expected.copy()
    reference[:wins] = 1
    candidate[wins : wins + losses] = 1
    return expected, reference, candidate


def test_the_error_of_accuracies_is_that_of_the_mean_of_the_differences():
    gain = paired_gain(ACCURACY, *answers(30, 20, 1000))
    difference = np.repeat([1.0, -1.0, 0.0], [30, 20, 950])
    assert gain.value == pytest.approx(0.01)
    assert gain.error == pytest.approx(difference.std(ddof=1) / np.sqrt(1000))
    assert gain.rows == 1000


@pytest.mark.parametrize(
    ("wins", "losses", "significant"),
    [(0, 0, False), (1, 0, False), (2, 0, False), (3, 0, True), (8, 5, False), (30, 20, True), (20, 30, False)],
)
def test_what_counts_as_more_than_chance(wins, losses, significant):
    assert paired_gain(ACCURACY, *answers(wins, losses)).is_significant is significant


def test_errors_gain_by_the_share_that_they_fall():
    expected = np.arange(50, dtype=np.float64)
    gain = paired_gain(MAE, expected, expected + 2, expected + 1)
    assert (gain.value, gain.is_significant) == (pytest.approx(0.5), True)
    assert gain.error == pytest.approx(0, abs=1e-9)  # each row gains alike
    assert paired_gain(MAE, expected, expected, expected) == Gain(0.0, 0.0, 50)


@pytest.mark.parametrize("metric", [MACRO_F1, LABEL_MICRO_F1], ids=lambda metric: metric.name)
def test_the_error_of_any_metric_is_near_that_of_resampling(metric):
    random = np.random.default_rng(0)
    expected = random.random((400, 5)) < 0.3 if metric is LABEL_MICRO_F1 else random.integers(0, 5, 400)
    noise = random.permutation(expected)
    reference, candidate = expected.copy(), expected.copy()
    for made, share in ((reference, 0.3), (candidate, 0.2)):
        wrong = random.random(400) < share
        made[wrong] = noise[wrong]
    gain = paired_gain(metric, expected, reference, candidate)
    before, after = metric.pair(expected, reference, candidate)
    drawn = random.integers(0, 400, (1000, 400))
    resampled = [float(metric.value(after[rows].sum(0)) - metric.value(before[rows].sum(0))) for rows in drawn]
    assert gain.error == pytest.approx(np.std(resampled), rel=0.15)


def test_one_row_says_nothing():
    gain = paired_gain(ACCURACY, np.array([0]), np.array([1]), np.array([0]))
    assert (gain.value, gain.is_significant) == (1.0, False)
