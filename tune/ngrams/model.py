"""A linear model of n-grams, fitted in seconds: what any pretrained model has to beat.

Linear support vector machines for labels, ridge regression for numbers, with fixed settings: nothing is chosen by
held-out rows, so that a figure on them is as honest as the base's. Must not import torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.heads import open_head
from edgetune.tune.data.dataset import Part
from edgetune.tune.data.rows import Input, flat_texts
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.ngrams.features import MOST_CHARACTERS, NgramFeatures
from edgetune.tune.ngrams.words import WordFeatures
from edgetune.tune.tasks.objective import FloatArray, Head, Objective, TokenObjective

# What is learnt from at most: rows, characters, and rows times outputs, in that order. The time of the fit grows with
# the last: 10,003 rows of banking77 in 77 classes take 4.6 CPU seconds.
MOST_ROWS, MOST_TRAINING_CHARACTERS, MOST_CELLS = 50_000, 20_000_000, 3_000_000
# Few rows of very many labels say little of any.
LEAST_ROWS = 10_000


class Features(Protocol):
    """How inputs become numbers."""

    @property
    def described(self) -> str:
        """What is learnt from, in words."""

    def transform(self, inputs: Sequence[Input]) -> Any:
        """(inputs, features) float32, a scipy CSR matrix."""


@dataclass(frozen=True)
class LinearModel:
    """A fitted model.

    Attributes:
        features: how inputs become numbers.
        head: how these become logits, of numbers in the user's units; None where they are compared as they are.
        rows, of_rows: training rows that it learnt from, and that there were.
        cpu_seconds: that fitting took.
    """

    features: Features
    head: Head | None
    rows: int
    of_rows: int
    cpu_seconds: float

    def logits(self, inputs: Sequence[Input]) -> FloatArray:
        """Logits of inputs, (rows, outputs) float32; of words those of all inputs' words."""
        assert self.head is not None
        return self.head.logits(self.features.transform(inputs)).astype(np.float32)

    @property
    def described(self) -> str:
        """What it was learnt from, in words."""
        part = "" if self.rows == self.of_rows else f" of {self.of_rows:,}"
        kind = "" if self.head is not None else "TF-IDF of "
        described = f"{kind}{self.features.described}"
        return f"{described}, learnt from {self.rows:,}{part} rows in {self.cpu_seconds:.1f} CPU seconds"


def fit_linear(
    objective: Objective,
    train: Part,
    seed: int,
    most_rows: int = MOST_ROWS,
    features_of: Callable[[Sequence[Input]], Features] = NgramFeatures.of,
) -> LinearModel:
    """Learn from training rows, or from as many of them as take seconds, drawn by the seed.

    Args:
        features_of: what is learnt from, of the rows that are drawn: a task's `linear_features`.

    Raises:
        DataError: there is no n-gram in the texts.
    """
    start = time.thread_time()
    drawn = frozen_indices(len(train), min(most_rows, _affordable(objective, train)), seed)
    part = Part(tuple(train.texts[row] for row in drawn), tuple(train.targets[row] for row in drawn))
    features = features_of(part.texts)
    if isinstance(features, WordFeatures) and isinstance(objective, TokenObjective):
        learnt = features.tags(objective, part)
    else:
        learnt = objective.learnt(part.targets)
    head = objective.linear_head(features.transform(part.texts), learnt)
    finished = objective.finished(head) if head is not None else None
    return LinearModel(features, finished, len(part), len(train), time.thread_time() - start)


def linear_answers(
    model: LinearModel,
    objective: Objective,
    held_out: Part,
    inputs: Sequence[Input],
    judged: Callable[[], LinearModel] | None = None,
) -> Any:
    """Decisions of a linear model on inputs, one entry each; without a head the features, (rows, features) CSR.

    Args:
        model: that answers.
        objective: that it learnt.
        held_out: rows on which thresholds of several labels are chosen.
        inputs: to answer.
        judged: gives the model whose answers on these rows choose, where there is a choice; None for the same.
    """
    if model.head is None:
        return model.features.transform(inputs)
    if isinstance(model.features, WordFeatures):
        return objective.answers(model.features.outputs(inputs, model.logits(inputs)))
    finished = objective.in_units()

    def held_out_logits() -> tuple[NDArray[Any], FloatArray]:
        return finished.expected(held_out.targets), (judged() if judged else model).logits(held_out.texts)

    return np.asarray(open_head(finished.head_spec(held_out_logits)).decide(model.logits(inputs)))


def _affordable(objective: Objective, train: Part) -> int:
    characters = sum(min(len(text), MOST_CHARACTERS) for text in flat_texts(train.texts))
    by_length = int(MOST_TRAINING_CHARACTERS / max(1.0, characters / max(1, len(train))))
    return min(by_length, max(LEAST_ROWS, MOST_CELLS // objective.width))
