"""Abstention: the probability below which an answer is unsure, chosen on rows that neither trained nor calibrated.

Selective prediction with a guaranteed risk (Geifman and El-Yaniv, Selective Classification for Deep Neural Networks,
2017, arXiv 1705.08500), by a fixed sequence of tests over a grid of thresholds (Angelopoulos et al., Learn then Test,
2021, arXiv 2110.01052). Must not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from edgetune.serve.report_confidence import AnsweredRows, RiskPoint

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Thresholds that may be chosen, strictest first; at 0 all is answered. Fixed, since bounds hold for what no row chose.
GRID = (0.999, 0.995, *(round(1 - step / 100, 2) for step in range(1, 100)), 0.0)
MOST_POINTS = 60
# Of the rows that belong to a class: texts out of scope that look like them must not silence the model.
LEAST_COVERAGE = 0.5


@dataclass(frozen=True)
class Confident:
    """Answers to rows: the probability of each, (rows,) float64, and whether it is right, (rows,) bool."""

    confidence: Floats
    right: Flags

    def answered(self, threshold: float) -> Flags:
        """Which rows are not unsure: (rows,) bool."""
        return self.confidence >= threshold


def guaranteed_thresholds(rows: Confident, pilot: Confident, max_error: float, confidence: float) -> list[float]:
    """The thresholds of GRID at which at most `max_error` of the answers are wrong, all of them with the confidence.

    Each is tested by the binomial distribution of its wrong answers, as Clopper and Pearson's one-sided bound does. The
    tests are a fixed sequence, which needs no correction for their number: it begins where the pilot rows say that a
    test is likeliest to succeed, goes down the grid and ends at the first that fails. So the probability that any of
    the thresholds does not hold is at most 1 - `confidence`.

    Args:
        rows: that neither the sequence nor the probabilities depend on.
        pilot: other rows, of which the beginning is chosen.
        max_error: share of wrong answers among those that are given.
        confidence: 0.95 for 95%.
    """
    begin = max(GRID, key=lambda threshold: _chance(pilot, threshold, len(rows.right), max_error, confidence))
    passed = []
    for threshold in GRID[GRID.index(begin) :]:
        answered = rows.answered(threshold)
        wrong, count = int((answered & ~rows.right).sum()), int(answered.sum())
        if not count or stats.binom.cdf(wrong, count, max_error) > 1 - confidence:
            break
        passed.append(threshold)
    return passed


def _chance(pilot: Confident, threshold: float, rows: int, max_error: float, confidence: float) -> float:
    """How likely the test of a threshold succeeds on so many rows, if the pilot's coverage and probabilities hold."""
    answered = pilot.answered(threshold)
    if not answered.any():
        return 0.0
    count = max(1, round(float(answered.mean()) * rows))
    allowed = int(stats.binom.ppf(1 - confidence, count, max_error))
    allowed -= int(stats.binom.cdf(allowed, count, max_error) > 1 - confidence)
    return float(stats.binom.cdf(allowed, count, 1 - pilot.confidence[answered].mean()))


def fewest_rows(max_error: float, confidence: float) -> int:
    """Answered rows, all of them right, from which a threshold can be guaranteed: 149 for 2% with 95%."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - max_error))


def balanced_threshold(rows: Confident, outside: Floats, thresholds: Sequence[float]) -> float:
    """The threshold by which both sides are served best: rows answered and right, texts out of scope unsure.

    The mean of the two shares is the largest (that is where Youden's index is, too), among the thresholds that answer
    LEAST_COVERAGE of the rows; of several alike the lowest, which answers most.

    Args:
        rows: that belong to a class.
        outside: the best probability of texts that belong to none, (texts,) float64.
        thresholds: of which one is chosen, strictest first.
    """

    def served(threshold: float) -> float:
        inside = float((rows.answered(threshold) & rows.right).mean())
        return inside + float((outside < threshold).mean())

    open_enough = [threshold for threshold in thresholds if rows.answered(threshold).mean() >= LEAST_COVERAGE]
    return max(reversed(open_enough or thresholds[-1:]), key=served)


def answered_rows(rows: Confident, threshold: float) -> AnsweredRows:
    """How many rows are answered at a threshold, and how many of those wrongly."""
    answered = rows.answered(threshold)
    count, wrong = int(answered.sum()), int((answered & ~rows.right).sum())
    return AnsweredRows(
        n=len(answered),
        answered=count,
        wrong=wrong,
        coverage=count / len(answered),
        coverage_ci95=exact_interval(count, len(answered)),
        error=wrong / count if count else None,
        error_ci95=exact_interval(wrong, count) if count else None,
    )


def exact_interval(count: int, rows: int) -> list[float]:
    """Clopper and Pearson's two-sided 95% interval of a share."""
    interval = stats.binomtest(count, rows).proportion_ci(0.95, method="exact")
    return [float(interval.low), float(interval.high)]


def surely_above(answers: AnsweredRows, max_error: float, confidence: float) -> bool:
    """Whether the share of wrong answers is above `max_error` with the confidence, by the binomial distribution."""
    return float(stats.binom.sf(answers.wrong - 1, answers.answered, max_error)) < 1 - confidence


def risk_curve(rows: Confident) -> list[RiskPoint]:
    """Coverage and share of wrong answers at up to MOST_POINTS thresholds between the rows' own, highest first."""
    order = np.argsort(-rows.confidence, kind="stable")
    ranked, wrong = rows.confidence[order], np.cumsum(~rows.right[order])
    last = np.append(ranked[1:] < ranked[:-1], True)  # rows of the same probability are answered together
    places = np.flatnonzero(last)
    places = places[np.unique(np.linspace(0, len(places) - 1, min(MOST_POINTS, len(places))).round().astype(int))]
    return [
        RiskPoint(
            threshold=float(ranked[place]),
            coverage=float((place + 1) / len(ranked)),
            error=float(wrong[place] / (place + 1)),
        )
        for place in places
    ]


def area_under_roc(inside: Floats, outside: Floats) -> float:
    """The probability that a text of `inside` has a higher value than one of `outside`, ties counted half."""
    return float(stats.mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside)))
