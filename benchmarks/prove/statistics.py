"""The statistics behind the verdicts: intervals of a metric and of a paired loss, and sample sizes.

All of it works on row statistics of `edgetune.tune.metrics`, those of a loss by two models on the same rows, because
the same rows under both say far more than two independent samples would.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.optimize import brentq

from edgetune.tune.metrics import Metric, Statistics

BOOTSTRAPS = 10_000
MOST_ROWS = 2**30
# Numbers of one array of resampled weights or sums: 32 MB.
_NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class PairedLoss:
    """How much worse the candidate's metric is than the reference's, on the same rows, as `Metric.loss` has it.

    `interval` is two-sided at the confidence asked for; `p_value` McNemar's exact test for any difference, None
    for metrics that are no share of rows; `deviation` the standard deviation of one row's contribution.
    """

    loss: float
    interval: tuple[float, float]
    p_value: float | None
    deviation: float


def metric_interval(
    metric: Metric, statistics: Statistics, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Two-sided interval of a metric's value: Wilson's for a share of rows, else `bootstrap_interval`.

    Args:
        metric: what the statistics are of.
        statistics: of rows, (rows, k) float64.
        confidence: 0.95 for 95%.
        seed: of the draws.
    """
    if metric.is_share:
        test = stats.binomtest(int(statistics[:, 0].sum()), len(statistics))
        interval = test.proportion_ci(confidence, method="wilson")
        return float(interval.low), float(interval.high)
    return bootstrap_interval(metric.value, statistics, confidence, seed)


def paired_loss(
    metric: Metric, reference: Statistics, candidate: Statistics, confidence: float = 0.95, seed: int = 0
) -> PairedLoss:
    """The loss from `reference` to `candidate`, row statistics (rows, k) float64 of the same rows.

    For a share of rows the interval is Tango's score interval for paired proportions (Statistics in Medicine 17, 1998),
    the interval that belongs to McNemar's test and holds with few differing rows; else `bootstrap_interval`. Where no
    row differs a bootstrap of a score sees no scatter at all, so that the width is Tango's there too.
    """
    rows, columns = reference.shape
    if metric.is_share:
        right, still_right = reference[:, 0] > 0, candidate[:, 0] > 0
        lost, gained = int((right & ~still_right).sum()), int((~right & still_right).sum())
        loss = (lost - gained) / rows  # the difference of two shares would be a rounding error off a limit such as 0.01
        p_value = float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
        deviation = math.sqrt(max(0.0, (lost + gained) / rows - loss**2))
        return PairedLoss(loss, tango_interval(lost, gained, rows, confidence), p_value, deviation)
    if np.array_equal(reference, candidate):
        interval = tango_interval(0, 0, rows, confidence) if metric.higher_is_better else (0.0, 0.0)
        return PairedLoss(0.0, interval, None, 0.0)

    def loss_of(sums: Statistics) -> NDArray[np.float64]:
        return metric.loss(metric.value(sums[..., :columns]), metric.value(sums[..., columns:]))

    both = np.concatenate([reference, candidate], axis=1)
    interval = bootstrap_interval(loss_of, both, confidence, seed)
    return PairedLoss(float(loss_of(both.sum(axis=0))), interval, None, _row_deviation(loss_of, both))


def bootstrap_interval(
    value: Callable[[Statistics], NDArray[np.float64]], statistics: Statistics, confidence: float, seed: int = 0
) -> tuple[float, float]:
    """Two-sided interval of a function of sums over rows, which are drawn whole.

    The bias-corrected and accelerated bootstrap (Efron, Better Bootstrap Confidence Intervals, JASA 82, 1987), since
    a few rows often carry most of a loss; its normal quantiles are those of Student's t, widened by
    sqrt(rows / (rows - 1)), because resampling n rows understates their scatter (Hesterberg, What Teachers Should
    Know About the Bootstrap, The American Statistician 69, 2015).

    Args:
        value: sums (..., k) float64 to values (...) float64.
        statistics: of rows, (rows, k) float64.
        confidence: 0.95 for 95%.
        seed: of the draws.
    """
    rows, estimate = len(statistics), float(value(statistics.sum(axis=0)))
    if rows < 2:
        return estimate, estimate
    drawn = _resampled(value, statistics, seed)
    if np.ptp(drawn) <= 1e-12 * max(1.0, abs(estimate)):
        return estimate, estimate
    below = (np.mean(drawn < estimate) + np.mean(drawn <= estimate)) / 2
    bias = float(stats.norm.ppf(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn))))
    without = _without_each(value, statistics)
    away = without.mean() - without
    spread = float((away**2).sum()) ** 1.5
    acceleration = float((away**3).sum()) / (6 * spread) if spread > 0 else 0.0
    wide = math.sqrt(rows / (rows - 1)) * float(stats.t.ppf(0.5 + confidence / 2, rows - 1))
    ends = [float(stats.norm.cdf(bias + (bias + z) / max(1 - acceleration * (bias + z), 1e-3))) for z in (-wide, wide)]
    low, high = np.quantile(drawn, ends)
    return float(low), float(high)


def _resampled(
    value: Callable[[Statistics], NDArray[np.float64]], statistics: Statistics, seed: int
) -> NDArray[np.float64]:
    """The value of `BOOTSTRAPS` draws of as many rows as there are, with replacement: (BOOTSTRAPS,) float64.

    A draw is how often each row falls, so that its sums are one product; most statistics of many classes are zero.
    """
    random, (rows, columns) = np.random.default_rng(seed), statistics.shape
    by_column = sparse.csr_array(statistics.T)
    at_once = max(1, _NUMBERS_AT_ONCE // max(rows, columns))
    parts = []
    for start in range(0, BOOTSTRAPS, at_once):
        draws = min(at_once, BOOTSTRAPS - start)
        picks = random.integers(0, rows, (draws, rows)) + rows * np.arange(draws)[:, None]
        times = np.bincount(picks.ravel(), minlength=draws * rows).reshape(draws, rows)
        parts.append(value((by_column @ times.T.astype(np.float64)).T))
    return np.concatenate(parts)


def _without_each(value: Callable[[Statistics], NDArray[np.float64]], statistics: Statistics) -> NDArray[np.float64]:
    """The value of all rows but one, for each row: (rows,) float64."""
    total, at_once = statistics.sum(axis=0), max(1, _NUMBERS_AT_ONCE // statistics.shape[1])
    starts = range(0, len(statistics), at_once)
    return np.concatenate([value(total - statistics[start : start + at_once]) for start in starts])


def _row_deviation(value: Callable[[Statistics], NDArray[np.float64]], statistics: Statistics) -> float:
    """The standard deviation of one row's contribution, by the jackknife: that of the value times sqrt(rows)."""
    rows = len(statistics)
    if rows < 2:
        return 0.0
    without = _without_each(value, statistics)
    return math.sqrt((rows - 1) * float(((without - without.mean()) ** 2).sum()))


def tango_interval(lost: float, gained: float, rows: int, confidence: float) -> tuple[float, float]:
    """Score interval of (lost - gained) / rows, where both count rows out of `rows` pairs."""
    z = float(stats.norm.ppf(0.5 + confidence / 2))

    def score(delta: float) -> float:
        linear = -lost - gained + (2 * rows - lost + gained) * delta
        constant = -gained * delta * (1 - delta)
        root = math.sqrt(max(0.0, linear**2 - 8 * rows * constant))
        rare = (root - linear) / (4 * rows)
        variance = rows * (2 * rare + delta * (1 - delta))
        return (lost - gained - rows * delta) / math.sqrt(max(variance, 1e-12))

    estimate = (lost - gained) / rows
    edge = 1 - 1e-9
    low = brentq(lambda delta: score(delta) - z, -edge, estimate) if score(-edge) > z else -1.0
    high = brentq(lambda delta: score(delta) + z, estimate, edge) if score(edge) < -z else 1.0
    return float(low), float(high)


def rows_that_bound(confidence: float) -> int:
    """The fewest rows whose extremes hold the middle of their distribution with the confidence: 6 for 95%.

    Each row lies on either side of it as a coin falls, so that n rows all lie on one side with 2^(1 - n). No interval
    that is drawn from fewer rows can keep its word, whatever their scatter.
    """
    return 1 + math.ceil(-math.log2(1 - confidence))


def rows_to_settle(paired: PairedLoss, limit: float, confidence: float) -> int | None:
    """Rows after which the interval would lie on one side of `limit`, if loss and scatter stay as they are.

    By the normal approximation; for a share of rows, and where no row differs, the score interval itself is asked,
    which with few differing rows wants up to a fifth more. None where the loss equals the limit or lies so close to
    it that no data set settles it.
    """
    distance = abs(limit - paired.loss)
    if distance < 1e-12:
        return None
    if paired.p_value is None and (paired.deviation > 0 or paired.loss != 0):
        z = float(stats.norm.ppf(0.5 + confidence / 2))
        return max(rows_that_bound(confidence), math.ceil((z * paired.deviation / distance) ** 2))
    differing = paired.deviation**2 + paired.loss**2
    lost, gained = (differing + paired.loss) / 2, (differing - paired.loss) / 2

    def settled(rows: int) -> bool:
        low, high = tango_interval(lost * rows, gained * rows, rows, confidence)
        return high <= limit or low > limit

    enough = next((2**power for power in range(MOST_ROWS.bit_length()) if settled(2**power)), None)
    if enough is None:
        return None
    return bisect.bisect_left(range(enough), True, lo=enough // 2, key=settled)
