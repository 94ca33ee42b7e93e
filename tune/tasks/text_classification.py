"""Text classification: one label for each text, by cross-entropy over all labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.report import ClassQuality, Confusion
from edgetune.tune.data.classes import check_classes, ordered_labels
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.list_cells import single_labels
from edgetune.tune.data.rows import Target, as_line
from edgetune.tune.metrics import ACCURACY, BALANCED_ACCURACY, MACRO_F1, Metric
from edgetune.tune.tasks.objective import FloatArray, Head, HeldOut, LabelObjective, label_qualities, support_vectors
from edgetune.tune.tasks.task import USUAL, Guess, Summary, Task, describe_labels

if TYPE_CHECKING:
    import torch

    from edgetune.tune.data.columns import Columns
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.reading import Table
    from edgetune.tune.data.rows import Input, Parts

MOST_CONFUSIONS = 12
# Evenness of classes is the entropy of their shares over that of equal ones (Pielou 1966): 1 where all have as many
# rows, 0.90 at 68 to 32, 0.29 at 95 to 5. Below this accuracy says little of the rare ones.
LEAST_EVENNESS = 0.9


@dataclass(frozen=True)
class SingleLabel(LabelObjective):
    """One of the labels for each row; targets are its class number."""

    problem_type: ClassVar[str] = "single_label_classification"

    def expected(self, targets: Sequence[Target]) -> NDArray[np.int64]:
        return np.asarray(targets, dtype=np.int64)

    def answers(self, logits: FloatArray) -> NDArray[np.int64]:
        return logits.argmax(axis=1)

    def constants(self, expected: NDArray[Any]) -> NDArray[np.int64]:
        """The most frequent class, which is best by accuracy and macro F1 alike."""
        return np.asarray([np.bincount(expected).argmax()])

    def second_metric(self, expected: NDArray[Any]) -> Metric | None:
        """Macro F1 beside the accuracy of uneven classes."""
        return MACRO_F1 if self.metric == ACCURACY and evenness(np.bincount(expected)) < LEAST_EVENNESS else None

    def weights(self, targets: Sequence[Target]) -> tuple[float, ...]:
        """Inverse to each class's rows, one on average over the rows (scikit-learn's "balanced")."""
        counts = np.bincount(self.expected(targets), minlength=self.width)
        weights: list[float] = (len(targets) / (self.width * np.maximum(counts, 1))).tolist()
        return tuple(weights)

    def loss(self, logits: torch.Tensor, learnt: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        from torch.nn import functional

        return functional.cross_entropy(logits, learnt, weight=weights, reduction="sum")

    def imitation(self, logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Kullback-Leibler divergence of the softened answers, times the squared temperature (Hinton et al. 2015)."""
        from torch.nn import functional

        softened = functional.log_softmax(logits / temperature, dim=-1)
        wanted = functional.log_softmax(teacher / temperature, dim=-1)
        return functional.kl_div(softened, wanted, log_target=True, reduction="batchmean") * temperature**2

    def solver(self, *, balanced: bool) -> LogisticSolver:
        return LogisticSolver(self.width, balanced=balanced)

    def linear_head(self, features: Any, learnt: NDArray[Any]) -> Head:
        return of_classes(support_vectors(features, learnt), np.unique(learnt), self.width)

    def head_spec(self, held_out: HeldOut) -> HeadSpec:
        return HeadSpec(kind="label", labels=list(self.labels))

    def confusions(self, expected: NDArray[Any], answers: NDArray[Any], inputs: Sequence[Input]) -> list[Confusion]:
        pairs: dict[tuple[int, int], list[int]] = {}
        for row in np.flatnonzero(expected != answers):
            pairs.setdefault((int(expected[row]), int(answers[row])), []).append(int(row))
        ordered = sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0]))
        return [
            Confusion(
                expected=self.labels[right],
                predicted=self.labels[wrong],
                rows=len(rows),
                example=as_line(inputs[rows[0]]),
            )
            for (right, wrong), rows in ordered[:MOST_CONFUSIONS]
        ]

    def classes(self, expected: NDArray[Any], answers: NDArray[Any]) -> list[ClassQuality]:
        hot = np.eye(self.width, dtype=bool)
        return label_qualities(hot[expected], hot[answers], self.labels)


def evenness(counts: NDArray[np.int64]) -> float:
    """Entropy of the shares of classes with these rows, over that of as many equal ones; 1 for a single class."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(len(shares))) if len(shares) > 1 else 1.0


class LogisticSolver:
    """scikit-learn's multinomial logistic regression, warm from fit to fit."""

    def __init__(self, width: int, *, balanced: bool) -> None:
        from sklearn.linear_model import LogisticRegression

        self._width = width
        self._model = LogisticRegression(max_iter=300, class_weight="balanced" if balanced else None)

    def solve(self, features: FloatArray, learnt: NDArray[Any], strength: float) -> Head:
        """The head of one strength; a label without rows gets a bias that no feature outweighs."""
        same = np.array_equal(np.unique(learnt), getattr(self._model, "classes_", np.empty(0)))
        self._model.set_params(C=strength, warm_start=same)
        self._model.fit(features, learnt)
        return of_classes(Head(self._model.coef_, self._model.intercept_), self._model.classes_, self._width)


def of_classes(head: Head, classes: NDArray[Any], width: int) -> Head:
    """A head of the classes that have rows as one of all; a class without rows gets a bias that nothing outweighs."""
    coefficients, intercepts = head.weight, head.bias
    if len(classes) == 2:  # scikit-learn gives a single row for two classes
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    weight: NDArray[Any] = np.zeros((width, coefficients.shape[1]))
    bias: NDArray[Any] = np.full(width, -1e4)
    if len(classes) == 1:
        bias[classes] = 0.0
    else:
        weight[classes], bias[classes] = coefficients, intercepts
    return Head(weight, bias)


class TextClassification(Task):
    """A label for a text."""

    name: ClassVar[str] = "text-classification"
    kind: ClassVar[str] = "label"
    summary: ClassVar[str] = "A label for a text."
    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY, MACRO_F1, BALANCED_ACCURACY)

    def recognises(self, columns: Mapping[str, Sequence[Any]], section: Mapping[str, Any]) -> Guess:
        """What labelled texts are taken for unless another task knows better."""
        return Guess(USUAL)

    def choose_columns(self, table: Table, recipe: DataRecipe) -> Columns:
        columns = super().choose_columns(table, recipe)
        name = columns.labels[0]
        changed = sum(a != b for a, b in zip(table.columns[name], single_labels(table, name), strict=True))
        if not changed:
            return columns
        note = f"The column {name!r} holds lists of one label in {counted(changed, 'row')}: the label is taken."
        return replace(columns, findings=(*columns.findings, note))

    def read_words(self, table: Table, columns: Columns) -> tuple[str, ...]:
        return single_labels(table, columns.labels[0])

    def labels(self, parts: Parts, source: str, order: Sequence[str] | None) -> tuple[str, ...]:
        check_classes(parts, source)
        return ordered_labels(set(parts.train.labels), order)

    def target(self, word: str, labels: Mapping[str, int]) -> int:
        return labels[word]

    def strata(self, targets: Sequence[Target]) -> list[Hashable]:
        return list(targets)

    def describe(self, labels: Sequence[str], targets: Sequence[Target]) -> Summary:
        return describe_labels(Counter(labels[int(target)] for target in targets), "classes")  # type: ignore[arg-type]

    def objective(self, labels: Sequence[str], metric: str, targets: Sequence[Target]) -> SingleLabel:
        return SingleLabel(tuple(labels), self.metric(metric))
