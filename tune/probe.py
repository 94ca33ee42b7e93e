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

from edgetune.tune.progress import Progress, Silent
from edgetune.tune.tasks.text_classification import Metric

# Inverse regularization strengths tried, on features scaled to unit variance overall; weakest last, so that
# each fit starts from the one before. On banking77 0.1 wins, 0.01 loses half a point and 1 a quarter.
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Probe:
    """A solved head: weight (labels, features) and bias (labels) float32 for the raw features.

    `value` is the task's metric on the validation part, `strength` the inverse regularization it was reached with.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    value: float
    strength: float

    def save(self, path: Path) -> None:
        """Write the head to `path`, beside and renamed, so that a file that is there is whole."""
        part = path.with_name("part-" + path.name)
        np.savez(part, weight=self.weight, bias=self.bias, value=self.value, strength=self.strength)
        part.rename(path)

    @classmethod
    def load(cls, path: Path) -> Probe:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as saved:
            return cls(saved["weight"], saved["bias"], float(saved["value"]), float(saved["strength"]))


def fit_probe(
    train: tuple[NDArray[np.float32], NDArray[np.int64]],
    validation: tuple[NDArray[np.float32], NDArray[np.int64]],
    labels: int,
    metric: Metric,
    *,
    balanced: bool = False,
    progress: Progress | None = None,
) -> Probe:
    """Solve the head for each strength and keep the one that does best on the validation part.

    Args:
        train, validation: features (rows, features) float32 and class indices (rows,) int64.
        labels: how many classes there are.
        metric: the task's metric; ties go to the stronger regularization.
        balanced: weigh classes by their rarity.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    progress = progress or Silent()
    mean = train[0].mean(axis=0)
    scale = float(train[0].std()) or 1.0
    solver = LogisticRegression(max_iter=300, warm_start=True, class_weight="balanced" if balanced else None)
    best: Probe | None = None
    for step, strength in enumerate(STRENGTHS, start=1):
        solver.set_params(C=strength)
        with warnings.catch_warnings():
            # 300 steps bound the time; the metric on held-out rows decides, not the last digit of the optimum.
            warnings.simplefilter("ignore", ConvergenceWarning)
            solver.fit((train[0] - mean) / scale, train[1])
        weight, bias = _logit_form(solver.coef_, solver.intercept_, solver.classes_, labels)
        weight = weight / scale
        bias = bias - weight @ mean
        predicted = (validation[0] @ weight.T + bias).argmax(axis=1)
        value = metric(validation[1], predicted)
        progress.advance(step, len(STRENGTHS), f"probe {value:.4f}")
        if best is None or value > best.value:
            best = Probe(weight.astype(np.float32), bias.astype(np.float32), value, strength)
    assert best is not None
    return best


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
