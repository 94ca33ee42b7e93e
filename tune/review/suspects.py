"""Labels that are probably wrong, by what a linear model of n-grams says of rows that it has not learnt.

Confident learning (Northcutt et al. 2021, arXiv 1911.00068; cleanlab) on out-of-fold probabilities. Must not import
torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.tune.data.dataset import Part
from edgetune.tune.ngrams.features import NgramFeatures
from edgetune.tune.tasks.objective import Head, Objective

FOLDS = 5
LARGEST_SCALE = 50.0  # of margins, so that no probability of separable classes becomes 0


@dataclass(frozen=True)
class Suspect:
    """A row whose label is probably wrong.

    Attributes:
        row: its position.
        given, suggested: numbers of labels: the row's own, and the most probable one.
        given_probability, suggested_probability: of these, out of fold.
    """

    row: int
    given: int
    suggested: int
    given_probability: float
    suggested_probability: float


def label_suspects(rows: Part, objective: Objective) -> list[Suspect]:
    """Rows whose label is probably wrong, the least probable labels first.

    How many there are is estimated from the errors that the model makes where it is sure; of a hard data set some are
    right.

    Args:
        rows: texts or pairs of texts, with the number of one label each.
        objective: of these labels.

    Raises:
        DataError: there is no n-gram in the texts.
    """
    from cleanlab.filter import find_label_issues

    targets = np.asarray(rows.targets, dtype=np.int64)
    probabilities = _out_of_fold(rows, objective, targets)
    ranked = find_label_issues(
        targets, probabilities, filter_by="low_self_confidence", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    suggested = probabilities.argmax(axis=1)
    return [
        Suspect(
            row,
            int(targets[row]),
            int(suggested[row]),
            float(probabilities[row, targets[row]]),
            float(probabilities[row, suggested[row]]),
        )
        for row in map(int, ranked)
        if suggested[row] != targets[row]
    ]


def _out_of_fold(rows: Part, objective: Objective, targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probabilities (rows, labels) of each row by a model that has not learnt it."""
    from scipy.special import log_softmax, softmax

    features = NgramFeatures.of(rows.texts).transform(rows.texts)
    folds = _folds(targets)
    margins = np.zeros((len(targets), objective.width), dtype=np.float64)
    for fold in range(FOLDS):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        learnt = objective.learnt([rows.targets[row] for row in inside])
        head = objective.linear_head(features[inside], learnt)
        assert isinstance(head, Head)
        margins[outside] = head.logits(features[outside])
    every = np.arange(len(targets))

    def loss(scale: float) -> float:
        return -float(log_softmax(margins * scale, axis=1)[every, targets].mean())

    scale = _least(loss)
    made: NDArray[np.float64] = softmax(margins * scale, axis=1)
    return made


def _folds(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fold of each row, (rows,) int64: the rows of a class are dealt out in turn, in a drawn order."""
    order = np.random.default_rng(0).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    folds = np.empty(len(targets), dtype=np.int64)
    folds[order] = np.arange(len(targets)) % FOLDS
    return folds


def _least(loss: Any) -> float:
    """The scale of margins with the least loss: one temperature for all rows (Guo et al. 2017, arXiv 1706.04599)."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log: loss(float(np.exp(log))), bounds=(-3.0, np.log(LARGEST_SCALE)), method="bounded"
    )
    return float(np.exp(found.x))
