"""Temperatures and calibration figures, against scikit-learn and by values known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from edgetune.benchmarks.prove.calibration import (
    FEWEST_ROWS,
    Scored,
    calibrated,
    calibration_error,
    calibration_figures,
    error_by_chance,
    fit_temperature,
    reliability,
)
from edgetune.serve.bundle import HeadSpec
from edgetune.serve.heads import open_head


def scored(rows: int, width: int, truth: float, seed: int = 0) -> Scored:
    """Logits whose probabilities are exactly right at the temperature `truth`."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2, size=(rows, width)).astype(np.float32)
    probabilities = Scored(logits, np.zeros(rows, dtype=np.int64)).probabilities(1.0)
    expected = np.array([random.choice(width, p=row) for row in probabilities])
    return Scored(logits * np.float32(truth), expected)


def several(rows: int, width: int, truth: float, seed: int = 0) -> Scored:
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2, size=(rows, width)).astype(np.float32)
    expected = random.random((rows, width)) < 1 / (1 + np.exp(-logits))
    return Scored(logits * np.float32(truth), expected)


@pytest.mark.parametrize("make", [scored, several])
@pytest.mark.parametrize("truth", [0.5, 2.5])
def test_the_temperature_is_what_logits_were_multiplied_by(make, truth):
    fitted = fit_temperature(make(4000, 5, truth), seed=0)
    assert fitted.temperature == pytest.approx(truth, rel=0.1)
    assert fitted.rows == 4000
    assert fitted.remark.startswith("Fitted on 4,000 validation rows; by cross-fitting")
    assert fit_temperature(make(4000, 5, truth), seed=0) == fitted


def test_no_temperature_where_it_does_not_pay():
    for seed in range(40):  # of rows that are calibrated already some part says that no temperature helps the rest
        rows = scored(100, 5, 1.0, seed)
        fitted = fit_temperature(rows, seed=0)
        if fitted.temperature == 1:
            assert "no temperature lowers the negative log-likelihood of unseen ones" in fitted.remark
            return
    raise AssertionError("a temperature was found for all 40")


def test_no_temperature_from_too_few_rows_or_from_answers_that_are_all_alike():
    rows = scored(400, 5, 3.0)
    few = fit_temperature(rows.take(np.arange(FEWEST_ROWS - 1)), seed=0)
    assert (few.temperature, few.rows) == (1.0, FEWEST_ROWS - 1)
    assert "too few to fit a temperature" in few.remark
    right = Scored(rows.logits, rows.logits.argmax(axis=1))
    assert "every answer on the 400 validation rows is right" in fit_temperature(right, seed=0).remark
    wrong = Scored(rows.logits, rows.logits.argmin(axis=1))
    assert "every answer on the 400 validation rows is wrong" in fit_temperature(wrong, seed=0).remark


def test_figures_of_one_label_are_those_of_scikit_learn():
    rows = scored(495, 4, 2.0)  # 33 a bin, so that interpolated quantiles cut where we do
    figures, probabilities = calibration_figures(rows, 1.7), rows.probabilities(1.7)
    assert figures.nll == pytest.approx(log_loss(rows.expected, probabilities, labels=range(4)))
    hot = rows.hot()
    per_class = [brier_score_loss(hot[:, place], probabilities[:, place]) for place in range(4)]
    assert figures.brier == pytest.approx(sum(per_class))
    confidence, right = rows.judged(1.7)
    for equal_width, strategy in ((False, "quantile"), (True, "uniform")):
        bins = reliability(confidence, right, equal_width=equal_width)
        shares, means = calibration_curve(right, confidence, n_bins=15, strategy=strategy)
        assert [one.right for one in bins] == pytest.approx(shares.tolist())
        assert [one.confidence for one in bins] == pytest.approx(means.tolist())
    assert figures.ece_equal_width == calibration_error(reliability(confidence, right, equal_width=True))
    assert figures.ece_equal_mass == calibration_error(reliability(confidence, right))


def test_figures_of_several_labels_count_each_as_an_answer():
    rows = several(300, 3, 2.0)
    figures, probabilities = calibration_figures(rows, 2.0), rows.probabilities(2.0)
    assert figures.nll == pytest.approx(np.mean([log_loss(rows.expected[:, k], probabilities[:, k]) for k in range(3)]))
    assert figures.brier == pytest.approx(brier_score_loss(rows.expected.ravel(), probabilities.ravel()))
    assert sum(one.n for one in reliability(*rows.judged(2.0))) == 900


def test_a_calibration_error_by_hand():
    confidence = np.array([0.2] * 5 + [0.9] * 15)
    right = np.array([True] + [False] * 4 + [True] * 9 + [False] * 6)
    bins = reliability(confidence, right, equal_width=True)
    assert [(one.n, one.right) for one in bins] == [(5, 0.2), (15, 0.6)]
    assert [one.confidence for one in bins] == pytest.approx([0.2, 0.9])
    assert calibration_error(bins) == pytest.approx(15 / 20 * 0.3)
    assert [one.n for one in reliability(confidence, right)] == [2] * 5 + [1] * 10


def test_probabilities_of_one_and_nought_have_a_place():
    bins = reliability(np.array([0.0, 1.0]), np.array([False, True]), equal_width=True)
    assert calibration_error(bins) == 0
    assert error_by_chance(np.array([0.0, 1.0]), seed=0) == 0


def test_the_error_by_chance_is_what_calibrated_answers_show():
    rows = scored(3000, 4, 1.0)
    confidence, right = rows.judged(1.0)
    chance = error_by_chance(confidence, seed=0)
    assert chance == pytest.approx(calibration_error(reliability(confidence, right)), abs=0.01)
    assert error_by_chance(confidence[:100], seed=0) > 2 * chance


@pytest.mark.parametrize("temperature", [0.3, 1.7, 8.0])
def test_no_decision_changes(temperature):
    logits = np.random.default_rng(3).normal(scale=4, size=(2000, 5)).astype(np.float32)
    head = HeadSpec(kind="labels", labels=list("abcde"), thresholds=[0.0, 0.13, 0.5, 0.97, 0.6])
    settled = calibrated(head, temperature)
    assert (settled.thresholds[0], settled.thresholds[2]) == (0.0, 0.5)
    assert np.array_equal(open_head(settled).decide(logits), open_head(head).decide(logits))
    one = HeadSpec(kind="label", labels=list("abcde"))
    assert calibrated(one, temperature).thresholds == []
    assert np.array_equal(open_head(calibrated(one, temperature)).decide(logits), open_head(one).decide(logits))
