"""The population stability index: by hand, its false alarms without any shift, and what it finds."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from edgetune.serve.drift import SURE_Z, DriftWatch, Figure, Reference


@dataclass
class Encoded:
    all_ids: list[int]


def test_the_index_by_hand():
    figure = Figure([0.0], [49, 49])  # with half a row each: halves
    values = np.array([-1.0] * 89 + [1.0] * 9)  # with half a row each: 89.5 and 9.5 of 99
    high, low = 89.5 / 99, 9.5 / 99
    assert figure.index(values) == pytest.approx(
        (high - 0.5) * math.log(high / 0.5) + (low - 0.5) * math.log(low / 0.5)
    )


def test_deciles_and_ties():
    figure = Figure.of(np.arange(1000.0))
    assert figure.counts == [100, 100, 100, 100, 100, 100, 100, 100, 100, 100]
    nothing = Figure.of(np.zeros(50))
    assert (nothing.edges, nothing.counts) == ([0.0], [50, 0])
    assert nothing.index(np.zeros(500)) < 0.05
    assert nothing.index(np.array([0.0, 0.3] * 250)) > 1


@pytest.mark.parametrize("bins", [2, 5, 10])
def test_the_limit_is_chi_squared_s_quantile(bins):
    figure = Figure([float(each) for each in range(bins - 1)], [4] * bins)
    exact = stats.chi2.ppf(stats.norm.cdf(SURE_Z), bins - 1) * (1 / 50 + 1 / (4 * bins))
    assert figure.limit(50) == pytest.approx(exact, rel=0.04)
    assert Figure(figure.edges, [100_000] * bins).limit(100_000) == 0.25


@pytest.mark.parametrize("rows", [60, 150, 1000])
def test_false_alarms_without_any_shift(rows):
    """Test parts and windows of one distribution, 2,000 times: at most 1% of the windows may pass the limit."""
    generator = np.random.default_rng(5)
    alarms = 0
    for _ in range(2_000):
        figure = Figure.of(generator.beta(5, 1, rows))
        window = generator.beta(5, 1, 500)
        alarms += figure.index(window) > figure.limit(500)
    assert alarms <= 20


def test_a_watch_says_when_inputs_leave_and_come_back(caplog):
    reference = Reference({"tokens": Figure.of(np.arange(200.0) % 20 + 1), "unknown": Figure.of(np.zeros(200))}, 7)
    watch = DriftWatch("m", reference, window=200)
    usual = [Encoded([1] * (number % 20 + 1)) for number in range(200)]
    strange = [Encoded([7, 1] * (number % 10 + 1)) for number in range(200)]
    with caplog.at_level(logging.INFO, "edgetune.serve"):
        watch.observe(usual[:199], None)
        assert watch.index == {}
        watch.observe(usual[199:], None)
        assert (sorted(watch.index), max(watch.index.values()) < 0.05, caplog.records) == (
            ["tokens", "unknown"],
            True,
            [],
        )
        watch.observe(strange, None)
        watch.observe(strange, None)
        assert watch.index["unknown"] > 1
        watch.observe(usual, None)
    lines = [record.getMessage() for record in caplog.records]
    gone = [line for line in lines if "the shares of unknown tokens have left" in line]
    assert len(gone) == 1
    assert [line for line in lines if "the shares of unknown tokens are those of the build's test part again" in line]
