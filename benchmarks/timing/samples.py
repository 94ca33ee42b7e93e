"""Samples of times and what is read off them: percentiles, where there are enough, and intervals of ratios.

Numpy alone, since `edgetune measure` runs without what a build needs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.report import LatencySummary


def smallest_sample(percentile: float, confidence: float = 0.95) -> int:
    """Samples of which the largest bounds the percentile (0 to 1) with the confidence: 29 for p90, 299 for p99."""
    return math.ceil(math.log(1 - confidence) / math.log(percentile))


def percentile_or_none(samples: Sequence[float], percentile: float) -> float | None:
    """The percentile (0 to 1), or None where the samples are too few to bound it."""
    if len(samples) < smallest_sample(percentile):
        return None
    return float(np.percentile(np.asarray(samples), 100 * percentile))


def summarize(samples: Sequence[float]) -> LatencySummary:
    """Percentiles of samples in ms; each is None where the samples are too few to bound it."""
    return LatencySummary(
        n=len(samples),
        mean=float(np.mean(samples)),
        p50=percentile_or_none(samples, 0.5),
        p90=percentile_or_none(samples, 0.9),
        p95=percentile_or_none(samples, 0.95),
        p99=percentile_or_none(samples, 0.99),
        samples=[round(sample, 4) for sample in samples],
    )


def flat(blocks: Sequence[Sequence[float]]) -> list[float]:
    """All samples of all blocks, in order."""
    return list(itertools.chain.from_iterable(blocks))


def ratio_interval(
    base: Sequence[Sequence[float]],
    other: Sequence[Sequence[float]],
    seed: int = 0,
    centre: Callable[[NDArray[np.float64]], Any] = np.median,
) -> list[float]:
    """95% bootstrap interval of median(base) / median(other), or of another `centre`, over blocks measured in turn.

    Blocks are drawn whole and in pairs, since what disturbs one block of samples disturbs its neighbours too.
    """
    first = [np.asarray(block) for block in base]
    second = [np.asarray(block) for block in other]
    draws = np.random.default_rng(seed).integers(0, len(first), (1000, len(first)))
    ratios = [
        centre(np.concatenate([first[i] for i in draw])) / centre(np.concatenate([second[i] for i in draw]))
        for draw in draws
    ]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return [float(low), float(high)]
