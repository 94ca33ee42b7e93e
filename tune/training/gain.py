"""Whether answers are better than others to the same rows by more than chance: the gain and its standard error.

By the one-standard-error rule (Breiman et al. 1984, Classification and Regression Trees, 3.4.3): of two that cannot be
told apart the cheaper is taken. Must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.tune.metrics import Metric


@dataclass(frozen=True)
class Gain:
    """What is gained from a reference's answers to a candidate's.

    Attributes:
        value: more is better: 0.01 is one point of a score, or one percent off an error.
        error: its standard error over the rows.
        rows: how many were answered.
    """

    value: float
    error: float
    rows: int

    @property
    def is_significant(self) -> bool:
        """Whether it exceeds its standard error by what one row counts, without which two rows that are answered
        better, and none worse, would do."""
        return self.value - 1 / self.rows > self.error


def paired_gain(metric: Metric, expected: NDArray[Any], reference: NDArray[Any], candidate: NDArray[Any]) -> Gain:
    """The gain on rows that both have answered; all arguments arrays with one entry a row, as the metric takes them.

    The standard error is the jackknife's, each row left out once (Efron and Stein 1981); for accuracies it is that of
    the mean of the rows' differences.
    """
    before, after = metric.pair(expected, reference, candidate)
    rows = len(before)

    def gain_of(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
        return -metric.loss(metric.value(old), metric.value(new))

    old, new = before.sum(axis=0), after.sum(axis=0)
    value = float(gain_of(old, new))
    if rows < 2:
        return Gain(value, np.inf, rows)
    without = gain_of(old - before, new - after)
    return Gain(value, float(np.sqrt((rows - 1) * without.var())), rows)
