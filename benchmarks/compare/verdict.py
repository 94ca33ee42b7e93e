"""A paired verdict: what is gained from A to B on the same rows, with its interval, and what that settles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from edgetune.benchmarks.prove.statistics import metric_interval, paired_loss, rows_to_settle
from edgetune.tune.metrics import Metric

Outcome = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Gain:
    """One metric of both sides on the same rows.

    Attributes:
        metric: its name.
        a, b: values of both sides.
        a_ci95, b_ci95: two-sided 95% intervals of each by itself.
        gain: from A to B, more being better: of a score the difference, of an error the share that it fell by.
        gain_ci: paired two-sided interval of the gain, at the confidence asked for.
        confidence: of `gain_ci`.
        p_value: McNemar's exact test, of shares of rows alone.
        outcome: what the interval settles: "better" or "worse" where it leaves out 0.
        rows_needed: about as many rows would settle it if gain and scatter stayed; None where none would, or it is.
    """

    metric: str
    a: float
    b: float
    a_ci95: tuple[float, float]
    b_ci95: tuple[float, float]
    gain: float
    gain_ci: tuple[float, float]
    confidence: float
    p_value: float | None
    outcome: Outcome
    rows_needed: int | None

    def is_not_worse(self, most_loss: float) -> bool:
        """Whether the interval leaves out a loss of more than `most_loss`."""
        return self.gain_ci[0] >= -most_loss


def gain_of(
    metric: Metric, expected: Any, a: NDArray[Any], b: NDArray[Any], *, confidence: float = 0.95, seed: int = 0
) -> Gain:
    """The gain of one metric: expected and answers with one entry a row, as the metric takes them."""
    first, second = metric.pair(expected, a, b)
    paired = paired_loss(metric, first, second, confidence, seed)
    low, high = paired.interval
    gained = (-high, -low)
    outcome: Outcome = "better" if gained[0] > 0 else "worse" if gained[1] < 0 else "undecided"
    return Gain(
        metric=metric.name,
        a=float(metric.value(first.sum(axis=0))),
        b=float(metric.value(second.sum(axis=0))),
        a_ci95=metric_interval(metric, first, seed=seed),
        b_ci95=metric_interval(metric, second, seed=seed),
        gain=-paired.loss + 0.0,
        gain_ci=(gained[0] + 0.0, gained[1] + 0.0),
        confidence=confidence,
        p_value=paired.p_value,
        outcome=outcome,
        rows_needed=rows_to_settle(paired, 0.0, confidence) if outcome == "undecided" else None,
    )
