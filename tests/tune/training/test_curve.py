"""What a training curve shows, in one sentence: curves made for each case."""

import pytest

from edgetune.serve.report import CurvePoint
from edgetune.tune.training.curve import remark_on


def curve(*points):
    """Points of training loss, validation loss and validation value, an epoch apart."""
    return [
        CurvePoint(epoch=float(epoch), train_loss=train, validation_loss=loss, validation_value=value)
        for epoch, (train, loss, value) in enumerate(points, start=1)
    ]


def test_a_validation_loss_that_rises_while_training_falls_is_overfitting():
    said = remark_on(curve((1.0, 0.80, 0.7), (0.5, 0.60, 0.8), (0.2, 0.70, 0.8), (0.1, 0.90, 0.79)))
    assert said.startswith("Overfitting after epoch 2: the validation loss rose from 0.600 to 0.900")
    assert "--method probe" in said


def test_a_rise_of_less_than_5_percent_is_none():
    said = remark_on(curve((1.0, 0.600, 0.80), (0.5, 0.600, 0.80), (0.2, 0.629, 0.80)))
    assert said.startswith("The curve is sound")


def test_a_rise_without_a_falling_training_loss_is_none():
    assert not remark_on(curve((0.5, 0.6, 0.8), (0.5, 0.9, 0.8))).startswith("Overfitting")
    assert not remark_on(curve((None, 0.6, 0.8), (None, 0.9, 0.8))).startswith("Overfitting")


def test_a_last_epoch_that_still_gains_is_underfitting():
    said = remark_on(curve((1.0, 0.9, 0.50), (0.8, 0.8, 0.60), (0.7, 0.7, 0.62)))
    assert said == (
        "Underfitting: the last epoch still gained 2.0 points on the validation part; more epochs may do better."
    )


@pytest.mark.parametrize(("gain", "word"), [(0.004, "The curve is sound"), (0.006, "Underfitting")])
def test_half_a_point_is_the_border(gain, word):
    assert remark_on(curve((1.0, 0.7, 0.8), (0.9, 0.7, 0.8 + gain))).startswith(word)


def test_one_epoch_and_none():
    assert remark_on(curve((1.0, 0.7, 0.8))) == "There was one evaluation, which shows no trend."
    assert remark_on([]) == "The head alone was solved; nothing was trained."
