"""The probe: a linear head solved on the frozen trunk's features, which every method starts its head from.

Linear probing then fine-tuning (Kumar et al. 2022, arXiv 2202.10054) keeps fine-tuning from distorting good
features while a random head settles. On a checkpoint trained for sentences the probe is the result to beat.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.tune.tasks.objective import Head, Objective
from edgetune.tune.training.progress import Progress, Silent

# Features of frozen rows and their targets as the loss takes them, (rows, features) float32 and (rows, ...).
Learnable = tuple[NDArray[np.float32], NDArray[Any]]


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
    train: Learnable,
    validation: Learnable,
    objective: Objective,
    *,
    balanced: bool = False,
    progress: Progress | None = None,
) -> Probe:
    """Solve the head for each strength, keep the one that does best on the validation part, solve it on both parts.

    Args:
        train, validation: features and targets.
        objective: what is learnt; ties go to the stronger regularization.
        balanced: weigh outputs by their rarity.
    """
    progress, metric = progress or Silent(), objective.metric
    solver = _ScaledSolver(train[0], objective, balanced=balanced)
    best: tuple[float, float, Head] | None = None
    for step, strength in enumerate(objective.strengths, start=1):
        head = solver.solve(strength, train)
        value = objective.value(validation[1], head.logits(validation[0]))
        if best is None or metric.is_better(value, best[0]):
            best = (value, strength, head)
        progress.advance(step, len(objective.strengths) + 1, f"probe {value:.4f}")
    assert best is not None
    value, strength, start = best
    both = (np.concatenate([train[0], validation[0]]), np.concatenate([train[1], validation[1]]))
    final = _ScaledSolver(train[0], objective, balanced=balanced).solve(strength, both)
    progress.advance(len(objective.strengths) + 1, len(objective.strengths) + 1, f"probe {value:.4f}")
    return Probe(start, final, value, strength)


class _ScaledSolver:
    """The objective's solver on features scaled as in the training part; its heads take raw features."""

    def __init__(self, features: NDArray[np.float32], objective: Objective, *, balanced: bool) -> None:
        self._mean = features.mean(axis=0)
        self._scale = float(features.std()) or 1.0
        self._solver = objective.solver(balanced=balanced)

    def solve(self, strength: float, rows: Learnable) -> Head:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # A few hundred steps bound the time; the metric on held-out rows decides, not the optimum's last digit.
            warnings.simplefilter("ignore", ConvergenceWarning)
            head = self._solver.solve((rows[0] - self._mean) / self._scale, rows[1], strength)
        weight = head.weight / self._scale
        return Head(weight.astype(np.float32), (head.bias - weight @ self._mean).astype(np.float32))
