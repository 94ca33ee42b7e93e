"""The statistics against values known by hand, from the literature, and from inverting the tests by brute force."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from edgetune.benchmarks.prove import statistics
from edgetune.benchmarks.prove.statistics import (
    PairedDrop,
    metric_interval,
    paired_drop,
    percentile_or_none,
    ratio_interval,
    rows_to_settle,
    smallest_sample,
    tango_interval,
)
from edgetune.tune.tasks.text_classification import accuracy, macro_f1


def answers(rows, lost, gained):
    """Expected, reference and candidate answers with so many rows lost and gained; the reference is right elsewhere."""
    expected = np.zeros(rows, dtype=np.int64)
    reference, candidate = expected.copy(), expected.copy()
    candidate[:lost] = 1
    reference[lost : lost + gained] = 1
    return expected, reference, candidate


# Wilson's interval. The first four are those of Newcombe, Statistics in Medicine 17 (1998), 857-872, table I.


@pytest.mark.parametrize(
    ("right", "rows", "interval"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (20, 20, (0.8389, 1.0)),
    ],
)
def test_wilsons_interval(right, rows, interval):
    expected = np.zeros(rows, dtype=np.int64)
    predicted = (np.arange(rows) >= right).astype(np.int64)
    assert metric_interval(accuracy, expected, predicted) == pytest.approx(interval, abs=5e-5)


def test_the_bootstrap_of_another_metric_holds_its_value_and_repeats(monkeypatch):
    monkeypatch.setattr(statistics, "BOOTSTRAPS", 200)
    random = np.random.default_rng(1)
    expected = random.integers(0, 3, 80)
    predicted = np.where(random.random(80) < 0.8, expected, random.integers(0, 3, 80))
    low, high = metric_interval(macro_f1, expected, predicted)
    assert low < macro_f1(expected, predicted) < high
    assert metric_interval(macro_f1, expected, predicted) == (low, high)


# McNemar's exact test: twice the binomial tail.


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 2 / 64), (0, 6, 2 / 64), (9, 1, 22 / 1024), (5, 5, 1.0), (8, 2, 112 / 1024)],
)
def test_mcnemars_exact_p(lost, gained, p_value):
    found = paired_drop(accuracy, *answers(100, lost, gained), 0.95)
    assert found.p_value == pytest.approx(p_value)
    assert found.drop == pytest.approx((lost - gained) / 100)
    # The variance of values that are -1, 0 and 1.
    assert found.deviation**2 == pytest.approx((lost + gained) / 100 - ((lost - gained) / 100) ** 2)


# Tango's interval.


def brute_force(lost, gained, rows, confidence=0.95):
    """All drops that the score test accepts, with the likelihood maximized numerically: none of the closed form."""
    z = stats.norm.ppf(0.5 + confidence / 2)

    def accepted(delta):
        # P(gained) = q, P(lost) = q + delta, the rest agrees.
        lowest, highest = max(0.0, -delta), (1 - delta) / 2

        def loss(q):
            cells = ((gained, q), (lost, q + delta), (rows - lost - gained, 1 - 2 * q - delta))
            return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

        q = minimize_scalar(loss, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12}).x
        variance = rows * (2 * q + delta * (1 - delta))
        return abs(lost - gained - rows * delta) <= z * math.sqrt(max(variance, 1e-12))

    estimate = (lost - gained) / rows

    def edge(outside, inside):
        for _ in range(40):
            middle = (outside + inside) / 2
            outside, inside = (outside, middle) if accepted(middle) else (middle, inside)
        return inside

    return edge(-1 + 1e-9, estimate), edge(1 - 1e-9, estimate)


@pytest.mark.parametrize(
    ("lost", "gained", "rows"), [(3, 1, 50), (12, 2, 100), (1, 0, 44), (0, 7, 60), (40, 31, 500), (20, 20, 400)]
)
def test_tangos_interval_is_the_inverted_test(lost, gained, rows):
    assert tango_interval(lost, gained, rows, 0.95) == pytest.approx(brute_force(lost, gained, rows), abs=2e-5)


def test_tangos_interval_of_the_published_example():
    # Tango 1998, the cross-over trial of two ways to disinfect contact lenses: 44 pairs, one of them discordant.
    assert tango_interval(0, 1, 44, 0.9) == pytest.approx((-0.096, 0.037), abs=5e-4)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("rows", [10, 50, 381, 4000])
def test_without_a_differing_row_the_interval_is_known_in_closed_form(rows, confidence):
    z = stats.norm.ppf(0.5 + confidence / 2)
    bound = z**2 / (rows + z**2)
    assert tango_interval(0, 0, rows, confidence) == pytest.approx((-bound, bound), abs=1e-9)


@pytest.mark.parametrize(("lost", "gained", "rows"), [(3, 1, 50), (12, 2, 100), (5, 0, 30), (10, 10, 10_000)])
def test_exchanging_the_models_mirrors_the_interval(lost, gained, rows):
    low, high = tango_interval(lost, gained, rows, 0.95)
    assert tango_interval(gained, lost, rows, 0.95) == pytest.approx((-high, -low), abs=1e-9)
    assert low < (lost - gained) / rows < high


@pytest.mark.parametrize(("lost", "gained", "rows"), [(10, 0, 10), (0, 10, 10), (1, 0, 1), (5, 5, 10)])
def test_the_interval_stays_within_one(lost, gained, rows):
    low, high = tango_interval(lost, gained, rows, 0.95)
    assert -1 <= low <= (lost - gained) / rows <= high <= 1


@pytest.mark.parametrize(("lost", "gained"), [(0.03, 0.01), (0.002, 0.002), (0.10, 0.02)])
def test_the_interval_covers_the_truth_as_often_as_it_says(lost, gained):
    random = np.random.default_rng(5)
    draws = random.multinomial(300, [lost, gained, 1 - lost - gained], size=600)
    intervals = [tango_interval(int(b), int(c), 300, 0.95) for b, c, _ in draws]
    covered = np.mean([low <= lost - gained <= high for low, high in intervals])
    assert 0.92 <= covered <= 1.0


def test_a_paired_bootstrap_for_metrics_that_are_no_mean(monkeypatch):
    monkeypatch.setattr(statistics, "BOOTSTRAPS", 200)
    random = np.random.default_rng(2)
    expected = random.integers(0, 3, 90)
    reference = np.where(random.random(90) < 0.9, expected, 0)
    candidate = np.where(random.random(90) < 0.5, reference, 1)
    found = paired_drop(macro_f1, expected, reference, candidate, 0.95)
    assert found.p_value is None
    assert 0 < found.interval[0] < found.drop < found.interval[1]
    same = paired_drop(macro_f1, expected, reference, reference, 0.95)
    assert (same.drop, same.interval, same.deviation) == (0, (0, 0), 0)


# How many rows settle it.


def test_rows_without_a_differing_answer_are_settled_by_381():
    nothing = PairedDrop(0.0, (0.0, 0.0), 1.0, 0.0)
    assert rows_to_settle(nothing, 0.01, 0.95) == 381
    assert tango_interval(0, 0, 381, 0.95)[1] <= 0.01 < tango_interval(0, 0, 380, 0.95)[1]


@pytest.mark.parametrize(
    ("lost", "gained", "rows", "allowed"), [(3, 2, 400, 0.01), (6, 1, 300, 0.01), (4, 4, 500, 0.005), (9, 1, 200, 0.02)]
)
def test_so_many_rows_settle_it_and_clearly_fewer_do_not(lost, gained, rows, allowed):
    drop = paired_drop(accuracy, *answers(rows, lost, gained), 0.95)
    needed = rows_to_settle(drop, allowed, 0.95)
    assert needed is not None
    assert needed > rows

    def settled(wanted):
        scale = wanted / rows
        low, high = tango_interval(round(lost * scale), round(gained * scale), wanted, 0.95)
        return high <= allowed or low > allowed

    # Counts are whole, and the rates that are scaled are not.
    assert settled(int(1.05 * needed))
    assert not settled(int(0.9 * needed))


def test_a_drop_at_the_limit_is_never_settled():
    assert rows_to_settle(PairedDrop(0.01, (0.0, 0.02), None, 0.1), 0.01, 0.95) is None
    assert rows_to_settle(PairedDrop(0.0, (0.0, 0.0), None, 0.0), 0.0, 0.95) is None


# Percentiles of latencies.


@pytest.mark.parametrize(("percentile", "samples"), [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299)])
def test_a_percentile_is_told_only_when_the_samples_bound_it(percentile, samples):
    assert smallest_sample(percentile) == samples
    # The largest of n samples lies above the percentile with the probability 1 - p^n.
    assert 1 - percentile**samples >= 0.95 > 1 - percentile ** (samples - 1)
    assert percentile_or_none(range(samples - 1), percentile) is None
    assert percentile_or_none(range(samples), percentile) == pytest.approx(percentile * (samples - 1))


def test_the_interval_of_a_ratio_of_medians():
    blocks = [[10.0, 11.0, 12.0], [9.0, 11.0, 30.0]]
    assert ratio_interval(blocks, blocks) == [1, 1]
    assert ratio_interval(blocks, [[value / 4 for value in block] for block in blocks]) == pytest.approx([4, 4])


def test_the_interval_of_a_ratio_holds_the_ratio_and_narrows_with_more_blocks():
    random = np.random.default_rng(3)

    def width(blocks):
        base = random.lognormal(math.log(8), 0.3, (blocks, 20)).tolist()
        other = random.lognormal(math.log(2), 0.3, (blocks, 20)).tolist()
        low, high = ratio_interval(base, other)
        assert low < 4 < high
        return high - low

    assert width(60) < width(6)
