"""The probe: a linear head solved on the frozen trunk's features, which every method starts its head from.

Linear probing then fine-tuning (Kumar et al. 2022, arXiv 2202.10054) keeps fine-tuning from distorting good
features while a random head settles. On a checkpoint trained for sentences the probe is the result to beat.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.tune.data.split import FEW_ROWS
from edgetune.tune.tasks.objective import Head, Objective
from edgetune.tune.training.progress import Progress, Silent

# Features of frozen rows and their targets as the loss takes them, (rows, features) float32 and (rows, ...).
Learnable = tuple[NDArray[np.float32], NDArray[Any]]
FOLDS, MOST_FOLDED_ROWS = 5, 2_000


@dataclass(frozen=True)
class Probe:
    """The solved probe.

    Attributes:
        start: the head solved on the training part, which methods start from, so that the validation part stays
            unseen while they train.
        final: the head solved on training and validation part together with the same strength: what the frozen
            trunk can do with all labels, for the base of the comparison and for handing on.
        logits: of the validation rows (rows, outputs) float32 by the probe as it will be handed on, but each row by a
            head that has not learnt it: of the training part and of the validation rows of the other folds.
        value: the task's metric of these.
        strength: the inverse regularization that was chosen.
    """

    start: Head
    final: Head
    logits: NDArray[np.float32]
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
            logits=self.logits,
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
                saved["logits"],
                float(saved["value"]),
                float(saved["strength"]),
            )


def fit_probe(
    train: Learnable,
    validation: Learnable,
    objective: Objective,
    *,
    balanced: bool = False,
    copies: int = 0,
    progress: Progress | None = None,
) -> Probe:
    """Solve the head for each strength, keep the one that does best on the validation part, solve it on both parts,
    and judge it as it will be handed on.

    Where a class has few rows, the strength is chosen by cross-validation over both parts: the validation part, which
    lacks most such classes, would choose by chance.

    Args:
        train, validation: features and targets.
        objective: what is learnt; ties go to the stronger regularization.
        balanced: weigh outputs by their rarity.
        copies: how many of the last training rows are changed copies of others. The strength is chosen without them:
            in another fold than its row, a copy would tell the row's answer.
    """
    progress, metric = progress or Silent(), objective.metric
    solver = _ScaledSolver(train[0], objective, balanced=balanced)
    best: tuple[float, float] | None = None
    first = len(train[0]) - copies
    plain = train[0][:first], train[1][:first]
    strengths = _cross_validated(plain, validation, objective, balanced=balanced, progress=progress)
    for step, strength in enumerate(strengths, start=1):
        head = solver.solve(strength, train)
        value = objective.value(validation[1], head.logits(validation[0]))
        if best is None or metric.is_better(value, best[0]):
            best = (value, strength)
        progress.advance(step, len(strengths) + 1, f"probe {value:.4f}")
    assert best is not None
    _, strength = best
    solver = _ScaledSolver(train[0], objective, balanced=balanced)
    start = solver.solve(strength, train)
    together = max(1, objective.rows_together)
    logits = _held_out(solver, train, validation, start, strength, together=together)
    final = solver.solve(strength, joined(train, validation))
    value = objective.value(validation[1], logits)
    progress.advance(len(strengths) + 1, len(strengths) + 1, f"probe {value:.4f}")
    return Probe(start, final, logits, value, strength)


def headless(validation: Learnable, objective: Objective) -> Probe:
    """What stands for the probe where there is no head to solve: the features as they are, by the identity."""
    features, targets = validation
    width = features.shape[1]
    head = Head(np.eye(width, dtype=np.float32), np.zeros(width, dtype=np.float32))
    return Probe(head, head, features, objective.value(targets, features), 1.0)


def _held_out(
    solver: _ScaledSolver, train: Learnable, validation: Learnable, start: Head, strength: float, *, together: int = 1
) -> NDArray[np.float32]:
    """Logits (rows, width) of the validation rows by heads that have learnt all others but those of their fold; of a
    large validation part, for which a fold more or less says nothing, by the head of the training part alone.

    `solver` has solved `start`, from which each fold goes on: from a head that has learnt the fold's own rows, a solver
    that stops where little changes would keep much of what it knows of them. Of rows that are learnt beside each other
    `together` in a row are in one fold.
    """
    features, targets = validation
    logits = start.logits(features)
    if len(features) > MOST_FOLDED_ROWS:
        return logits
    folds = np.arange(len(features)) // together % FOLDS
    for fold in range(min(FOLDS, math.ceil(len(features) / together))):
        inside = folds != fold
        head = copy.deepcopy(solver).solve(strength, joined(train, (features[inside], targets[inside])))
        logits[~inside] = head.logits(features[~inside])
    return logits


def joined(train: Learnable, validation: Learnable) -> Learnable:
    """Two parts as one."""
    return np.concatenate([train[0], validation[0]]), np.concatenate([train[1], validation[1]])


def _cross_validated(
    train: Learnable, validation: Learnable, objective: Objective, *, balanced: bool, progress: Progress
) -> tuple[float, ...]:
    """The strength with the best metric over folds of both parts where a class has few rows, at a tie the nearest to
    scikit-learn's default of 1; else all there are."""
    rows = joined(train, validation)
    folds = _folds(rows[1])
    if folds is None:
        return objective.strengths
    logits = np.zeros((len(rows[1]), objective.width), dtype=np.float32)
    solvers = [_ScaledSolver(rows[0][folds != fold], objective, balanced=balanced) for fold in range(FOLDS)]
    values = {}
    for strength in objective.strengths:
        for fold, solver in enumerate(solvers):
            head = solver.solve(strength, (rows[0][folds != fold], rows[1][folds != fold]))
            logits[folds == fold] = head.logits(rows[0][folds == fold])
        values[strength] = objective.value(rows[1], logits)
    most = max(values.values()) if objective.metric.higher_is_better else min(values.values())
    # Of a class with one row no fold tells anything, and the strongest regularization would never answer it.
    chosen = min((strength for strength, value in values.items() if value == most), key=lambda it: abs(np.log(it)))
    progress.say(
        f"probe: strength {chosen:g} by cross-validation over {len(logits):,} rows, since classes have as few as "
        f"{np.unique(rows[1], return_counts=True)[1].min()}; out of fold {most:.4f}"
    )
    return (chosen,)


def _folds(targets: NDArray[Any]) -> NDArray[np.int64] | None:
    """The fold of each row, each class spread over all: (rows,) int64; None where no class of the targets has few rows,
    there are no classes, or a fold would leave a single one."""
    if targets.ndim != 1 or targets.dtype.kind != "i" or len(targets) > MOST_FOLDED_ROWS:
        return None
    classes, counts = np.unique(targets, return_counts=True)
    if counts.min() >= FEW_ROWS:
        return None
    folds = np.zeros(len(targets), dtype=np.int64)
    for number in classes:
        rows = np.flatnonzero(targets == number)
        folds[rows] = (np.arange(len(rows)) + number) % FOLDS
    alone = any(len(np.unique(targets[folds != fold])) < 2 for fold in range(FOLDS))
    return None if alone else folds


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
