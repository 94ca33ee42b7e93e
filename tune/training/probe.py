"""The probe: logistic regression on the frozen trunk's features, which every method starts its head from.

Linear probing then fine-tuning (Kumar et al. 2022, arXiv 2202.10054) keeps fine-tuning from distorting good
features while a random head settles. On a checkpoint trained for sentences the probe is the result to beat.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetune.tune.metrics import Metric
from edgetune.tune.training.progress import Progress, Silent

# Inverse regularization strengths tried, on features scaled to unit variance overall; weakest last, so that
# each fit starts from the one before. On banking77 0.1 wins, 0.01 loses half a point and 1 a quarter.
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)


Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Head:
    """A linear head for raw features: weight (labels, features) and bias (labels) float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def answer(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """The best class of each row: features (rows, features) to (rows,) int64."""
        return (features @ self.weight.T + self.bias).argmax(axis=1)


@dataclass(frozen=True)
class Probe:
    """The solved probe.

    Attributes:
        start: the head solved on the training part, which methods start from, so that the validation part stays
            unseen while they train.
        final: the head solved on training and validation part together with the same strength: what the frozen
            trunk can do with all labels, for the base of the comparison and for handing on.
        value: the task's metric of `start` on the validation part.
        strength: the inverse regularization that was chosen.
    """

    start: Head
    final: Head
    value: float
    strength: float

    def save(self, path: Path) -> None:
        """Write the probe to `path`, beside and renamed, so that a file that is there is whole."""
        part = path.with_name("part-" + path.name)
        np.savez(
            part,
            start_weight=self.start.weight,
            start_bias=self.start.bias,
            final_weight=self.final.weight,
            final_bias=self.final.bias,
            value=self.value,
            strength=self.strength,
        )
        part.rename(path)

    @classmethod
    def load(cls, path: Path) -> Probe:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as saved:
            return cls(
                Head(saved["start_weight"], saved["start_bias"]),
                Head(saved["final_weight"], saved["final_bias"]),
                float(saved["value"]),
                float(saved["strength"]),
            )


def fit_probe(
    train: Labelled,
    validation: Labelled,
    labels: int,
    metric: Metric,
    *,
    balanced: bool = False,
    progress: Progress | None = None,
) -> Probe:
    """Solve the head for each strength, keep the one that does best on the validation part, solve it on both parts.

    Args:
        train, validation: features (rows, features) float32 and class indices (rows,) int64.
        labels: how many classes there are.
        metric: the task's metric; ties go to the stronger regularization.
        balanced: weigh classes by their rarity.
    """
    progress = progress or Silent()
    solver = _Solver(train, labels, balanced)
    found: list[tuple[float, float, Head]] = []
    for step, strength in enumerate(STRENGTHS, start=1):
        head = solver.solve(strength, train)
        found.append((metric.of(validation[1], head.answer(validation[0])), strength, head))
        progress.advance(step, len(STRENGTHS) + 1, f"probe {found[-1][0]:.4f}")
    value, strength, start = max(found, key=lambda entry: entry[0])
    both = (np.concatenate([train[0], validation[0]]), np.concatenate([train[1], validation[1]]))
    final = _Solver(train, labels, balanced).solve(strength, both)
    progress.advance(len(STRENGTHS) + 1, len(STRENGTHS) + 1, f"probe {value:.4f}")
    return Probe(start, final, value, strength)


class _Solver:
    """scikit-learn's logistic regression on features scaled as in the training part, warm from fit to fit."""

    def __init__(self, train: Labelled, labels: int, balanced: bool) -> None:
        from sklearn.linear_model import LogisticRegression

        self._labels = labels
        self._mean = train[0].mean(axis=0)
        self._scale = float(train[0].std()) or 1.0
        self._model = LogisticRegression(max_iter=300, warm_start=True, class_weight="balanced" if balanced else None)

    def solve(self, strength: float, rows: Labelled) -> Head:
        from sklearn.exceptions import ConvergenceWarning

        self._model.set_params(C=strength)
        with warnings.catch_warnings():
            # 300 steps bound the time; the metric on held-out rows decides, not the last digit of the optimum.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit((rows[0] - self._mean) / self._scale, rows[1])
        weight, bias = _logit_form(self._model.coef_, self._model.intercept_, self._model.classes_, self._labels)
        weight = weight / self._scale
        return Head(weight.astype(np.float32), (bias - weight @ self._mean).astype(np.float32))


def _logit_form(
    coefficients: NDArray[np.float64],
    intercepts: NDArray[np.float64],
    classes: NDArray[np.int64],
    labels: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One row of weights a label: scikit-learn gives a single row for two classes, and none for absent ones."""
    if len(classes) == 2:
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    weight = np.zeros((labels, coefficients.shape[1]))
    bias = np.full(labels, -1e4)
    weight[classes], bias[classes] = coefficients, intercepts
    return weight, bias
