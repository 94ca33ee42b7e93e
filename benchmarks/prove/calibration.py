"""Calibration: the temperature that makes a head's probabilities shares of right answers, and how far they are that.

Temperature scaling of Guo et al., On Calibration of Modern Neural Networks (2017, arXiv 1706.04599): one number by
which all logits are divided, so that no decision changes. Must not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.report_confidence import CalibrationFigures, ReliabilityBin

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BINS = 15
FOLDS = 5
# Below this the temperature of one half of the rows says little of the other.
FEWEST_ROWS = 40
COLDEST, HOTTEST = 0.1, 10.0
_DRAWS = 50


@dataclass(frozen=True)
class Scored:
    """Rows as they were answered: `logits` (rows, width) float32, and what was expected, as the metric takes it.

    `expected` is (rows,) int64 class numbers of the kind `label`, (rows, width) bool of the kind `labels`.
    """

    logits: NDArray[np.float32]
    expected: NDArray[Any]

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, rows: NDArray[np.int64]) -> Scored:
        """Some of the rows."""
        return Scored(self.logits[rows], self.expected[rows])

    @property
    def several(self) -> bool:
        """Whether a row may have several labels, each with a probability of its own."""
        return self.expected.ndim == 2

    def probabilities(self, temperature: float) -> Floats:
        """(rows, width) float64: a softmax of each row, or a sigmoid of each logit."""
        scaled = self.logits.astype(np.float64) / temperature
        return np.asarray(expit(scaled) if self.several else softmax(scaled, axis=1))

    def hot(self) -> Flags:
        """Which labels each row has: (rows, width) bool."""
        if self.several:
            return self.expected.astype(bool)
        hot = np.zeros(self.logits.shape, dtype=bool)
        hot[np.arange(len(self)), self.expected] = True
        return hot

    def losses(self, temperature: float) -> Floats:
        """Negative log-likelihood of each row in nats, of several labels the mean over them: (rows,) float64."""
        scaled = self.logits.astype(np.float64) / temperature
        if self.several:
            return -np.where(self.hot(), log_expit(scaled), log_expit(-scaled)).mean(axis=1)
        return -log_softmax(scaled, axis=1)[np.arange(len(self)), self.expected]

    def judged(self, temperature: float) -> tuple[Floats, Flags]:
        """The probability of each answer and whether it is right, (answers,) each.

        The best label of a row is one answer; of several labels each is, by its probability to be there.
        """
        probabilities = self.probabilities(temperature)
        if self.several:
            return probabilities.ravel(), self.hot().ravel()
        return probabilities.max(axis=1), self.logits.argmax(axis=1) == self.expected


@dataclass(frozen=True)
class FittedTemperature:
    """What logits are divided by, the rows that it was fitted on, and why, in a sentence."""

    temperature: float
    rows: int
    remark: str


def fit_temperature(rows: Scored, seed: int) -> FittedTemperature:
    """The temperature of the lowest negative log-likelihood, 1 where it would not lower that of rows it has not seen.

    Whether it does is found by cross-fitting: each fifth of the rows is judged by the temperature of the others, and
    the mean gain has to exceed its standard error (sst2, 218 rows: a lesser gain was a loss on the test part).

    Args:
        rows: of the validation part, answered as they will be served.
        seed: of the folds.
    """
    if len(rows) < FEWEST_ROWS:
        return _unchanged(rows, f"{len(rows)} validation rows are too few to fit a temperature; {FEWEST_ROWS} are not")
    right = rows.judged(1.0)[1] if not rows.several else (rows.logits >= 0) == rows.hot()
    if right.all() or not right.any():
        every = "right" if right.all() else "wrong"
        return _unchanged(rows, f"every answer on the {len(rows):,} validation rows is {every}, so that none is fitted")
    folds = np.array_split(np.random.default_rng(seed).permutation(len(rows)), FOLDS)
    losses, fitted = rows.losses(1.0), _cross_fitted(rows, folds)
    before, after = float(losses.mean()), float(fitted.mean())
    if not before - after > float((losses - fitted).std()) / math.sqrt(len(rows)):
        return _unchanged(
            rows,
            f"on {len(rows):,} validation rows no temperature lowers the negative log-likelihood of unseen ones by "
            f"more than its standard error ({before:.4f} without, {after:.4f} with one)",
        )
    temperature = round(_best(rows), 4)
    return FittedTemperature(
        temperature,
        len(rows),
        f"Fitted on {len(rows):,} validation rows; by cross-fitting the negative log-likelihood there falls from "
        f"{before:.4f} to {after:.4f}.",
    )


def _unchanged(rows: Scored, reason: str) -> FittedTemperature:
    return FittedTemperature(1.0, len(rows), f"Not calibrated: {reason}.")


def _best(rows: Scored) -> float:
    def loss(logarithm: float) -> float:
        return float(rows.losses(math.exp(logarithm)).mean())

    ends = (math.log(COLDEST), math.log(HOTTEST))
    return math.exp(float(minimize_scalar(loss, bounds=ends, method="bounded").x))


def _cross_fitted(rows: Scored, folds: Sequence[NDArray[np.int64]]) -> Floats:
    """The loss of each row at the temperature of the other folds: (rows,) float64."""
    losses = np.empty(len(rows))
    for fold in folds:
        others = np.setdiff1d(np.arange(len(rows)), fold)
        losses[fold] = rows.take(fold).losses(_best(rows.take(others)))
    return losses


def calibrated(head: HeadSpec, temperature: float) -> HeadSpec:
    """The head with a temperature; the thresholds of several labels move along, so that no decision changes."""
    thresholds = np.asarray(head.thresholds, dtype=np.float64)
    with np.errstate(divide="ignore"):
        moved = expit((np.log(thresholds) - np.log1p(-thresholds)) / temperature)
    return msgspec.structs.replace(head, temperature=temperature, thresholds=moved.tolist())


def calibration_figures(rows: Scored, temperature: float) -> CalibrationFigures:
    """How far the probabilities at a temperature are from shares of right answers."""
    probabilities, hot = rows.probabilities(temperature), rows.hot()
    squares = (probabilities - hot) ** 2
    answers = rows.judged(temperature)
    return CalibrationFigures(
        ece_equal_mass=calibration_error(reliability(*answers)),
        ece_equal_width=calibration_error(reliability(*answers, equal_width=True)),
        nll=float(rows.losses(temperature).mean()),
        brier=float(squares.mean() if rows.several else squares.sum(axis=1).mean()),
    )


def reliability(confidence: Floats, right: Flags, *, equal_width: bool = False) -> list[ReliabilityBin]:
    """Answers in up to 15 bins by their probability, lowest first: of as many answers each, or of the same width.

    Args:
        confidence: the probability of each answer, (answers,) float64.
        right: whether it is right, (answers,) bool.
        equal_width: bins of the same width; empty ones are left out.
    """
    if equal_width:
        number = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        groups = [np.flatnonzero(number == place) for place in range(BINS)]
    else:
        groups = np.array_split(np.argsort(confidence, kind="stable"), BINS)
    return [
        ReliabilityBin(n=len(group), confidence=float(confidence[group].mean()), right=float(right[group].mean()))
        for group in groups
        if len(group)
    ]


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: the mean distance of probability and share of right answers, weighed by answers."""
    total = sum(one.n for one in bins)
    return sum(one.n * abs(one.confidence - one.right) for one in bins) / total


def error_by_chance(confidence: Floats, seed: int) -> float:
    """The mean calibration error, bins of as many answers each, if every probability were exactly right."""
    random, ordered = np.random.default_rng(seed), np.sort(confidence)
    draws = [reliability(ordered, random.random(len(ordered)) < ordered) for _ in range(_DRAWS)]
    return float(np.mean([calibration_error(bins) for bins in draws]))
