"""Metrics: each a value computed from sums of row statistics, so that one paired judge serves all tasks.

A statistic is taken once a row; the value of any set of rows, a resampled one too, is a function of the sums of theirs.
Stands in `tune` because training chooses its best epoch by the task's metric; the intervals and the gate, which judge
by the same statistics, are in `edgetune.benchmarks.prove`. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Statistics = NDArray[np.float64]

_TITLES = {
    **{"mae": "MAE", "rmse": "RMSE", "r2": "R2", "spearman": "Spearman", "mrr_at_10": "MRR@10"},
    **{"recall_at_1": "recall@1", "recall_at_5": "recall@5", "recall_at_10": "recall@10"},
}

# Beyond this an error counts as having risen so far: a rise from nothing has no share, and JSON has no infinity.
MOST_RISE = 1e6


@dataclass(frozen=True)
class Metric:
    """A measure of answers against what was expected.

    Attributes:
        name: as recipes and reports name it.
        rows: (expected, answers), each with one entry a row, to the rows' statistics: (rows, k) float64.
        value: sums of statistics (..., k) float64 to values (...) float64.
        higher_is_better: False for errors such as MAE and perplexity.
        is_share: whether a row's statistics are (right, 1) with right 0 or 1, and the value their quotient: score
            intervals for proportions (Wilson, Tango) then hold; all others are bootstrapped.
        compares_rows: whether answers are judged beside each other, as vectors are by their neighbours.
    """

    name: str
    rows: Callable[[Any, Any], Statistics]
    value: Callable[[Statistics], NDArray[np.float64]]
    higher_is_better: bool = True
    is_share: bool = False
    compares_rows: bool = False

    def of(self, expected: Any, answers: Any) -> float:
        """The value over all rows."""
        return float(self.value(self.rows(expected, answers).sum(axis=0)))

    def pair(self, expected: Any, reference: Any, candidate: Any) -> tuple[Statistics, Statistics]:
        """Row statistics of two models' answers to the same rows; all arguments arrays with one entry a row.

        Taken in one go, so that both have as many columns: a class that only one of the two answers counts for both.
        Where rows are compared with each other, each model's with its own.
        """
        if self.compares_rows:
            return self.rows(expected, reference), self.rows(expected, candidate)
        both = self.rows(np.concatenate([expected, expected]), np.concatenate([reference, candidate]))
        return both[: len(expected)], both[len(expected) :]

    @property
    def title(self) -> str:
        """The name as people write it."""
        return title_of(self.name)

    def shown(self, value: float) -> str:
        """A value for people, with the metric's name: accuracies in percent."""
        return f"{100 * value:.2f}% {self.title}" if is_percent(self.name) else f"{value:.4g} {self.title}"

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value is better than another."""
        return value > other if self.higher_is_better else value < other

    def loss(self, reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is lost from values of a reference to those of a candidate (...) float64, more being worse.

        Scores lose the difference (0.01 is one point); errors rise by a share of the reference's (0.02 is two
        percent), at most by `MOST_RISE`.
        """
        if self.higher_is_better:
            return np.asarray(reference - candidate)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            rise = np.where(reference == candidate, 0.0, np.divide(candidate, reference) - 1)
        return np.asarray(np.clip(np.where(np.isnan(rise), MOST_RISE, rise), -1.0, MOST_RISE))


def title_of(name: str) -> str:
    """A metric's name as people write it."""
    return _TITLES.get(name, name.replace("_", " "))


def is_percent(name: str) -> bool:
    """Whether a metric is spoken of in percent; F1, correlations and errors are not."""
    return "accuracy" in name.lower()


def is_error(name: str) -> bool:
    """Whether less of a metric is better: its loss is then a relative rise, not a drop."""
    return name in ERRORS


def _quotient(sums: Statistics) -> NDArray[np.float64]:
    """The first sum by the second."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def _right(expected: NDArray[np.int64], answers: NDArray[np.int64]) -> Statistics:
    right = np.asarray(expected == answers, dtype=np.float64)
    return np.stack([right, np.ones(len(right))], axis=1)


def _all_right(expected: NDArray[np.bool_], answers: NDArray[np.bool_]) -> Statistics:
    """Whether all labels of a row are right; both arguments (rows, labels) bool."""
    right = (np.asarray(expected) == np.asarray(answers)).all(axis=1)
    return _right(right.astype(np.int64), np.ones(len(right), dtype=np.int64))


def _class_counts(expected: NDArray[np.int64], answers: NDArray[np.int64]) -> Statistics:
    """Right, answered and expected of each class: (rows, 3 x classes)."""
    classes = int(max(np.max(expected, initial=0), np.max(answers, initial=0))) + 1
    hot = np.eye(classes, dtype=bool)
    return _label_counts(hot[np.asarray(expected)], hot[np.asarray(answers)])


def _label_counts(expected: NDArray[np.bool_], answers: NDArray[np.bool_]) -> Statistics:
    """Right, given and expected of each label: both arguments (rows, labels) bool, (rows, 3 x labels) float64 out."""
    expected, answers = np.asarray(expected, dtype=bool), np.asarray(answers, dtype=bool)
    return np.concatenate([expected & answers, answers, expected], axis=1).astype(np.float64)


def _macro_f1(sums: Statistics) -> NDArray[np.float64]:
    """Mean F1 of the classes that are expected at all; a class that no row expects is left out."""
    right, given, expected = np.split(sums, 3, axis=-1)
    total = given + expected
    f1 = np.divide(2 * right, total, out=np.zeros_like(total), where=total > 0)
    there = expected > 0
    return np.asarray(np.where(there, f1, 0.0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1))


def _micro_f1(sums: Statistics) -> NDArray[np.float64]:
    right, given, expected = (part.sum(axis=-1) for part in np.split(sums, 3, axis=-1))
    total = given + expected
    return np.divide(2 * right, total, out=np.zeros_like(total), where=total > 0)


def _span_counts(expected: NDArray[np.object_], answers: NDArray[np.object_]) -> Statistics:
    """Right, given and expected spans of each type, by exact borders: arguments (rows,) of `Spans`, (rows, 3 x types)
    float64 out."""
    kinds = {span[2] for spans in (*expected, *answers) for span in spans.items}
    places = {kind: place for place, kind in enumerate(sorted(kinds))}
    counts = np.zeros((len(expected), 3, max(1, len(places))))
    for row, (wanted, given) in enumerate(zip(expected, answers, strict=True)):
        right = set(wanted.items) & set(given.items)
        for part, spans in enumerate((right, given.items, wanted.items)):
            for span in spans:
                counts[row, part, places[span[2]]] += 1
    return counts.reshape(len(expected), -1)


def _balanced(sums: Statistics) -> NDArray[np.float64]:
    """Mean recall of the classes that are expected at all."""
    right, _, expected = np.split(sums, 3, axis=-1)
    there = expected > 0
    recall = np.divide(right, expected, out=np.zeros_like(right), where=there)
    return np.asarray(recall.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1))


def _absolute(expected: NDArray[np.float64], answers: NDArray[np.float64]) -> Statistics:
    away = np.abs(np.asarray(expected, dtype=np.float64) - np.asarray(answers, dtype=np.float64))
    return np.stack([away, np.ones(len(away))], axis=1)


def _squared(expected: NDArray[np.float64], answers: NDArray[np.float64]) -> Statistics:
    away = np.square(np.asarray(expected, dtype=np.float64) - np.asarray(answers, dtype=np.float64))
    return np.stack([away, np.ones(len(away))], axis=1)


def _nats(tokens: NDArray[np.int64], nats: NDArray[np.float64]) -> Statistics:
    """Of a language model a row is its scored tokens and minus their log-probability in nats."""
    return np.stack([np.asarray(nats, dtype=np.float64), np.asarray(tokens, dtype=np.float64)], axis=1)


def _preferred(none: NDArray[np.float64], margins: NDArray[np.float64]) -> Statistics:
    """Of a pair of answers whether the chosen one has the larger reward: margins (pairs,) float64, 0 for a tie."""
    return np.stack([np.asarray(margins > 0, dtype=np.float64), np.ones(len(margins))], axis=1)


def pair_rows(expected: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of the chosen and of the rejected answer of each pair, (pairs,) int64 each.

    Args:
        expected: the number of its pair and 1 for a chosen answer or 0, (rows, 2) int64; whole pairs.
    """
    order = np.lexsort((expected[:, 1], expected[:, 0]))
    return order[1::2], order[::2]


def _ordered(expected: NDArray[np.int64], rewards: NDArray[np.float64]) -> Statistics:
    """Of each pair whether its chosen answer has the larger reward; a tie prefers nothing, and is lost."""
    chosen, rejected = pair_rows(expected)
    right = np.asarray(rewards[chosen] > rewards[rejected], dtype=np.float64)
    return np.stack([right, np.ones(len(right))], axis=1)


def _perplexity(sums: Statistics) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(_quotient(sums)))


ACCURACY = Metric("accuracy", _right, _quotient, is_share=True)
MACRO_F1 = Metric("macro_f1", _class_counts, _macro_f1)
BALANCED_ACCURACY = Metric("balanced_accuracy", _class_counts, _balanced)

# Of several labels a row: expected and answers are (rows, labels) bool.
LABEL_MICRO_F1 = Metric("micro_f1", _label_counts, _micro_f1)
LABEL_MACRO_F1 = Metric("macro_f1", _label_counts, _macro_f1)
SUBSET_ACCURACY = Metric("subset_accuracy", _all_right, _quotient, is_share=True)

# Of labelled spans a row: expected and answers are arrays of `edgetune.serve.heads.entities.Spans`.
ENTITY_F1 = Metric("entity_f1", _span_counts, _micro_f1)
ENTITY_MACRO_F1 = Metric("type_macro_f1", _span_counts, _macro_f1)

# Of a number a row.
MAE = Metric("mae", _absolute, _quotient, higher_is_better=False)
RMSE = Metric("rmse", _squared, lambda sums: np.sqrt(_quotient(sums)), higher_is_better=False)

# Of a reward for each answer: expected are (pair, is chosen), answers rewards.
PAIR_ACCURACY = Metric("pair_accuracy", _ordered, _quotient, is_share=True, compares_rows=True)

# Of generated text: expected are the rows' scored tokens, answers their nats.
PERPLEXITY = Metric("perplexity", _nats, _perplexity, higher_is_better=False)

# Of judged pairs of answers: answers are margins, and nothing is expected but that they are above 0.
PREFERENCE_ACCURACY = Metric("preference_accuracy", _preferred, _quotient, is_share=True)

ERRORS = frozenset(metric.name for metric in (MAE, RMSE, PERPLEXITY))
