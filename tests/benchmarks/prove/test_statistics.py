"""The statistics against values known by hand, from the literature, and from inverting the tests by brute force."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar
from sklearn.metrics import f1_score

from edgetune.benchmarks.prove import statistics as statistics_of
from edgetune.benchmarks.prove.statistics import (
    PairedLoss,
    metric_interval,
    paired_loss,
    rows_that_bound,
    rows_to_settle,
    tango_interval,
)
from edgetune.benchmarks.timing.samples import percentile_or_none, ratio_interval, smallest_sample
from edgetune.tune.metrics import ACCURACY, MACRO_F1, MAE, PERPLEXITY


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
    assert metric_interval(ACCURACY, ACCURACY.rows(expected, predicted)) == pytest.approx(interval, abs=5e-5)


def three_classes(rows=80, right=0.8, seed=1):
    random = np.random.default_rng(seed)
    expected = random.integers(0, 3, rows)
    return expected, np.where(random.random(rows) < right, expected, random.integers(0, 3, rows))


def test_the_bootstrap_of_another_metric_holds_its_value_and_repeats():
    statistics = MACRO_F1.rows(*three_classes())
    low, high = metric_interval(MACRO_F1, statistics)
    assert low < MACRO_F1.of(*three_classes()) < high
    assert metric_interval(MACRO_F1, statistics) == (low, high)
    wider = metric_interval(MACRO_F1, statistics, confidence=0.99)
    assert wider[0] < low
    assert wider[1] > high


@pytest.mark.parametrize("at_once", [7 * 80, 10**9])
def test_draws_of_sums_are_the_metric_of_the_rows_drawn(monkeypatch, at_once):
    """Sums weighed by how often a row falls, beside scikit-learn's F1 of the very rows."""
    monkeypatch.setattr(statistics_of, "BOOTSTRAPS", 50)
    monkeypatch.setattr(statistics_of, "_NUMBERS_AT_ONCE", at_once)
    expected, predicted = three_classes()
    drawn = statistics_of._resampled(MACRO_F1.value, MACRO_F1.rows(expected, predicted), seed=0)
    random, by_scikit = np.random.default_rng(0), []
    for _ in range(50):
        rows = random.integers(0, 80, 80)
        labels = np.unique(expected[rows])
        by_scikit.append(f1_score(expected[rows], predicted[rows], labels=labels, average="macro", zero_division=0))
    assert drawn == pytest.approx(by_scikit, abs=1e-12)


def test_the_interval_of_a_mean_is_that_of_student():
    """Normal rows: the bootstrap's interval is the textbook's, within what 10,000 draws scatter."""
    away = np.random.default_rng(4).normal(10, 1, 40)
    statistics = MAE.rows(np.zeros(40), away)
    low, high = metric_interval(MAE, statistics)
    margin = stats.t.ppf(0.975, 39) * away.std(ddof=1) / math.sqrt(40)
    assert (low, high) == pytest.approx((away.mean() - margin, away.mean() + margin), abs=0.15 * margin)


def test_one_row_has_no_interval():
    assert metric_interval(MAE, MAE.rows(np.zeros(1), np.ones(1))) == (1.0, 1.0)
    assert paired_loss(MAE, MAE.rows(np.zeros(1), np.ones(1)), MAE.rows(np.zeros(1), np.full(1, 2.0))) == PairedLoss(
        1.0, (1.0, 1.0), None, 0.0
    )


# McNemar's exact test: twice the binomial tail.


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 2 / 64), (0, 6, 2 / 64), (9, 1, 22 / 1024), (5, 5, 1.0), (8, 2, 112 / 1024)],
)
def test_mcnemars_exact_p(lost, gained, p_value):
    found = paired_loss(ACCURACY, *ACCURACY.pair(*answers(100, lost, gained)), 0.95)
    assert found.p_value == pytest.approx(p_value)
    assert found.loss == pytest.approx((lost - gained) / 100)
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


def test_a_paired_bootstrap_for_metrics_that_are_no_mean():
    random = np.random.default_rng(2)
    expected = random.integers(0, 3, 90)
    reference = np.where(random.random(90) < 0.9, expected, 0)
    candidate = np.where(random.random(90) < 0.5, reference, 1)
    found = paired_loss(MACRO_F1, *MACRO_F1.pair(expected, reference, candidate), 0.95)
    assert found.p_value is None
    assert found.loss == pytest.approx(MACRO_F1.of(expected, reference) - MACRO_F1.of(expected, candidate))
    assert 0 < found.interval[0] < found.loss < found.interval[1]
    # The normal interval of the same scatter, roughly: the jackknife and the bootstrap see the same rows.
    normal = 2 * 1.96 * found.deviation / math.sqrt(90)
    assert found.interval[1] - found.interval[0] == pytest.approx(normal, rel=0.3)


def test_of_a_score_that_differs_in_no_row_the_interval_is_as_wide_as_tangos():
    expected, reference = three_classes()
    same = paired_loss(MACRO_F1, *MACRO_F1.pair(expected, reference, reference), 0.95)
    assert same == PairedLoss(0.0, tango_interval(0, 0, 80, 0.95), None, 0.0)
    # An error is a real number: two models that differ do not give the same one for every row.
    numbers = MAE.rows(np.zeros(80), np.arange(80.0))
    assert paired_loss(MAE, numbers, numbers) == PairedLoss(0.0, (0.0, 0.0), None, 0.0)


def test_the_relative_rise_of_an_error_in_pairs():
    random = np.random.default_rng(6)
    reference = random.exponential(2, 200)
    candidate = reference * random.normal(1.1, 0.05, 200)
    found = paired_loss(MAE, *MAE.pair(np.zeros(200), reference, candidate))
    assert found.loss == pytest.approx(candidate.sum() / reference.sum() - 1)
    assert 0.08 < found.interval[0] < found.loss < found.interval[1] < 0.12
    # The ratio's deviation by linearization (Cochran, Sampling Techniques, 1977, section 6.4).
    residuals = candidate - reference * (1 + found.loss)
    assert found.deviation == pytest.approx(residuals.std(ddof=1) / reference.mean(), rel=0.02)


def rises(differences, tokens, confidence=0.95, seed=0):
    """Interval of the rise of a perplexity whose rows differ by so many nats."""
    reference = 2.0 * tokens
    pair = (PERPLEXITY.rows(tokens, nats) for nats in (reference, reference + differences))
    return paired_loss(PERPLEXITY, *pair, confidence, seed).interval


def test_the_same_rows_are_judged_the_same_twice():
    random = np.random.default_rng(1)
    differences, tokens = random.normal(0.1, 1, 60), random.integers(5, 200, 60)
    assert rises(differences, tokens) == rises(differences, tokens)
    assert rises(differences, tokens) != rises(differences, tokens, seed=1)


def test_a_wild_row_pulls_the_interval_to_its_side():
    differences = np.full(100, 0.01)
    differences[0] = 5.0
    low, high = rises(differences, np.full(100, 10))
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
        low, high = rises(differences, tokens, 0.9)
        held += low <= math.expm1(truth) <= high
    # 180 are expected; four standard deviations of a binomial are 17.
    assert 163 <= held <= 197


# How many rows settle it.


def test_rows_without_a_differing_answer_are_settled_by_381():
    nothing = PairedLoss(0.0, (0.0, 0.0), 1.0, 0.0)
    assert rows_to_settle(nothing, 0.01, 0.95) == 381
    assert tango_interval(0, 0, 381, 0.95)[1] <= 0.01 < tango_interval(0, 0, 380, 0.95)[1]


@pytest.mark.parametrize(
    ("lost", "gained", "rows", "allowed"), [(3, 2, 400, 0.01), (6, 1, 300, 0.01), (4, 4, 500, 0.005), (9, 1, 200, 0.02)]
)
def test_so_many_rows_settle_it_and_clearly_fewer_do_not(lost, gained, rows, allowed):
    drop = paired_loss(ACCURACY, *ACCURACY.pair(*answers(rows, lost, gained)), 0.95)
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


@pytest.mark.parametrize(("confidence", "rows"), [(0.75, 3), (0.9, 5), (0.95, 6), (0.99, 8)])
def test_the_extremes_of_so_many_rows_bound_their_middle(confidence, rows):
    assert rows_that_bound(confidence) == rows
    assert 1 - 2.0 ** (1 - rows) >= confidence > 1 - 2.0 ** (2 - rows)


def test_a_loss_without_scatter_still_wants_the_rows_that_bound_it():
    assert rows_to_settle(PairedLoss(0.001, (0.001, 0.001), None, 0.0), 0.02, 0.95) == 6


def test_a_drop_at_the_limit_is_never_settled():
    assert rows_to_settle(PairedLoss(0.01, (0.0, 0.02), None, 0.1), 0.01, 0.95) is None
    assert rows_to_settle(PairedLoss(0.0, (0.0, 0.0), None, 0.0), 0.0, 0.95) is None


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
