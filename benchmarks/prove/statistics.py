"""The statistics behind the verdicts: intervals for one metric and for a paired drop, and sample sizes.

All of it works on rows answered by two models at once, because the same rows under both say far more than two
independent samples would.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from edgetune.tune.tasks.text_classification import Metric, accuracy

BOOTSTRAPS = 2000
MOST_ROWS = 2**30


@dataclass(frozen=True)
class PairedDrop:
    """How much lower the candidate's metric is than the reference's, on the same rows.

    `interval` is two-sided at the confidence asked for; `p_value` McNemar's exact test for any difference, None
    for metrics that are no mean over rows; `deviation` the standard deviation of one row's contribution.
    """

    drop: float
    interval: tuple[float, float]
    p_value: float | None
    deviation: float


def metric_interval(
    metric: Metric, expected: NDArray[np.int64], predicted: NDArray[np.int64], seed: int = 0
) -> tuple[float, float]:
    """The 95% interval of a metric: Wilson's for accuracy, a percentile bootstrap otherwise."""
    if metric is accuracy:
        right = int(np.sum(expected == predicted))
        interval = stats.binomtest(right, len(expected)).proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)
    values = [metric(expected[rows], predicted[rows]) for rows in _resamples(len(expected), seed)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def paired_drop(
    metric: Metric,
    expected: NDArray[np.int64],
    reference: NDArray[np.int64],
    candidate: NDArray[np.int64],
    confidence: float,
    seed: int = 0,
) -> PairedDrop:
    """The drop from `reference` to `candidate`, all arguments (rows,) class indices.

    For accuracy the interval is Tango's score interval for paired proportions (Statistics in Medicine 17, 1998),
    the interval that belongs to McNemar's test and holds with few differing rows; else a paired bootstrap.
    """
    if metric is accuracy:
        lost = int(np.sum((reference == expected) & (candidate != expected)))
        gained = int(np.sum((reference != expected) & (candidate == expected)))
        rows = len(expected)
        drop = (lost - gained) / rows  # the difference of two shares would be a rounding error off a limit such as 0.01
        p_value = float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
        deviation = math.sqrt(max(0.0, (lost + gained) / rows - drop**2))
        return PairedDrop(drop, tango_interval(lost, gained, rows, confidence), p_value, deviation)
    drop = metric(expected, reference) - metric(expected, candidate)
    drops = [
        metric(expected[rows], reference[rows]) - metric(expected[rows], candidate[rows])
        for rows in _resamples(len(expected), seed)
    ]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drops, [tail, 100 - tail])
    return PairedDrop(drop, (float(low), float(high)), None, float(np.std(drops)) * math.sqrt(len(expected)))


def _resamples(rows: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, rows, (BOOTSTRAPS, rows))


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


def rows_to_settle(drop: PairedDrop, max_drop: float, confidence: float) -> int | None:
    """Rows after which the interval would lie on one side of `max_drop`, if drop and scatter stay as they are.

    None where the drop equals the limit or lies so close to it that no data set settles it. For accuracy the score
    interval itself is asked, which with few differing rows wants up to a fifth more than the normal approximation.
    """
    distance = abs(max_drop - drop.drop)
    if distance < 1e-12:
        return None
    if drop.p_value is None:
        z = float(stats.norm.ppf(0.5 + confidence / 2))
        return math.ceil((z * drop.deviation / distance) ** 2)
    differing = drop.deviation**2 + drop.drop**2
    lost, gained = (differing + drop.drop) / 2, (differing - drop.drop) / 2

    def settled(rows: int) -> bool:
        low, high = tango_interval(lost * rows, gained * rows, rows, confidence)
        return high <= max_drop or low > max_drop

    enough = next((2**power for power in range(MOST_ROWS.bit_length()) if settled(2**power)), None)
    if enough is None:
        return None
    return bisect.bisect_left(range(enough), True, lo=enough // 2, key=settled)


def smallest_sample(percentile: float, confidence: float = 0.95) -> int:
    """Samples of which the largest bounds the percentile (0 to 1) with the confidence: 29 for p90, 299 for p99."""
    return math.ceil(math.log(1 - confidence) / math.log(percentile))


def percentile_or_none(samples: Sequence[float], percentile: float) -> float | None:
    """The percentile (0 to 1), or None where the samples are too few to bound it."""
    if len(samples) < smallest_sample(percentile):
        return None
    return float(np.percentile(np.asarray(samples), 100 * percentile))


def ratio_interval(base: Sequence[Sequence[float]], other: Sequence[Sequence[float]], seed: int = 0) -> list[float]:
    """95% bootstrap interval of median(base) / median(other), over blocks measured in turn.

    Blocks are drawn whole and in pairs, since what disturbs one block of samples disturbs its neighbours too.
    """
    first = [np.asarray(block) for block in base]
    second = [np.asarray(block) for block in other]
    draws = np.random.default_rng(seed).integers(0, len(first), (1000, len(first)))
    ratios = [
        np.median(np.concatenate([first[i] for i in draw])) / np.median(np.concatenate([second[i] for i in draw]))
        for draw in draws
    ]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return [float(low), float(high)]
