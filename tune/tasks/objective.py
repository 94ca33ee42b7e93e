"""The objective: what a model learns of one data set, and how its answers are judged while it is being tuned.

Between the task, which knows rows, and the training, which knows steps. Arrays of targets come in two forms:
`expected`, in the user's own units, by which answers are judged, and `learnt`, which the loss takes.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.report import ClassQuality, Confusion
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.metrics import Metric

if TYPE_CHECKING:
    import torch

    from edgetune.serve.codecs.tokens import EncodedTokens
    from edgetune.tune.data.dataset import Dataset
    from edgetune.tune.data.rows import Input, Target
    from edgetune.tune.recipe import TuneRecipe

FloatArray = NDArray[np.float32]
# The tag of a token that nothing is learnt of, special ones and padding: what transformers pads tags with.
UNSEEN = -100
# Targets of held-out rows as the metric takes them, and a finished model's logits (rows, width) for them.
HeldOut = Callable[[], tuple[NDArray[Any], FloatArray]]


# Inverse regularization strengths tried, on features scaled to unit variance overall; weakest last, so that
# each fit starts from the one before. On banking77 0.1 wins, 0.01 loses half a point and 1 a quarter.
LABEL_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Head:
    """A linear head for raw features: weight (outputs, features) and bias (outputs) float32."""

    weight: FloatArray
    bias: FloatArray

    def logits(self, features: FloatArray) -> FloatArray:
        """Features (rows, features) float32 to outputs (rows, outputs) float32."""
        return features @ self.weight.T + self.bias


class Solver(Protocol):
    """Solves linear heads on frozen features, each from where the one before ended."""

    def solve(self, features: FloatArray, learnt: NDArray[Any], strength: float) -> Head:
        """The head of one strength.

        Args:
            features: (rows, features) float32, scaled to about unit variance.
            learnt: targets as the loss takes them.
            strength: inverse strength of the L2 regularization.
        """


@dataclass(frozen=True)
class Objective(ABC):
    """What is learnt.

    Attributes:
        labels: in the order of the outputs; none of a number.
        metric: what epochs, methods and candidates are compared by.
        per_token: whether each token is given logits, and not the whole input.
    """

    labels: tuple[str, ...]
    metric: Metric
    per_token: ClassVar[bool] = False

    @property
    @abstractmethod
    def width(self) -> int:
        """Outputs of the head."""

    @abstractmethod
    def configure(self, config: Any) -> None:
        """Set labels and problem type in a transformers config."""

    @abstractmethod
    def expected(self, targets: Sequence[Target]) -> NDArray[Any]:
        """Targets as the metric takes them, one entry a row."""

    def learnt(self, targets: Sequence[Target]) -> NDArray[Any]:
        """Targets as the loss takes them, one entry a row."""
        return self.expected(targets)

    @abstractmethod
    def answers(self, logits: FloatArray) -> NDArray[Any]:
        """Decisions for logits (rows, width) of a model that is being tuned, as the metric takes them."""

    def restored(self, learnt: NDArray[Any]) -> NDArray[Any]:
        """What `learnt` gave, as the metric takes it."""
        return learnt

    @property
    def rows_together(self) -> int:
        """Rows that are learnt beside each other, by a loss that compares rows; 0 where each is learnt by itself.

        A batch then has so many times `tune.batch_size` rows, in the order that `order` gives.
        """
        return 0

    def order(self, learnt: NDArray[Any], random: np.random.Generator) -> Iterator[int]:
        """The rows of one epoch, those that are learnt beside each other one behind the other."""
        return iter(random.permutation(len(learnt)).tolist())

    def set_by(self, recipe: TuneRecipe, dataset: Dataset) -> Objective:
        """The objective with what the recipe and the data set say of it."""
        return self

    def served_by(self, head: HeadSpec) -> Objective:
        """The objective of a model that was tuned already, with what its head says of it."""
        return self

    def metrics(self, known: Sequence[Metric]) -> tuple[Metric, ...]:
        """Of the task's metrics those that these targets can be judged by."""
        return tuple(known)

    def drawn(self, targets: Sequence[Target], most: int, seed: int) -> NDArray[np.int64]:
        """At most `most` rows that judge, the same for the same seed and data, ascending: (drawn,) int64."""
        return frozen_indices(len(targets), most, seed)

    def visible(self, logits: FloatArray, learnt: NDArray[Any]) -> FloatArray:
        """Logits of an evaluation as `answers` takes them; where tokens are learnt, without those that are not."""
        return logits

    def value(self, learnt: NDArray[Any], logits: FloatArray) -> float:
        """The metric of a model that is being tuned, by targets as the loss takes them and logits (rows, width)."""
        return self.metric.of(self.restored(learnt), self.answers(logits))

    def weights(self, targets: Sequence[Target]) -> tuple[float, ...] | None:
        """Weights of the outputs, by which rare ones count as much as common ones; None where there are none."""
        return None

    @abstractmethod
    def loss(self, logits: torch.Tensor, learnt: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Sum over the rows of the loss: logits (rows, width) float32; a scalar."""

    @abstractmethod
    def imitation(self, logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Mean over the rows of a student's distance from its teacher, both logits (rows, width) float32; a scalar."""

    @property
    @abstractmethod
    def strengths(self) -> tuple[float, ...]:
        """Inverse strengths of regularization that the probe tries, strongest regularization first."""

    @abstractmethod
    def solver(self, *, balanced: bool) -> Solver:
        """What solves the probe's head; `balanced` weighs outputs by their rarity, where there is such a thing."""

    @abstractmethod
    def linear_head(self, features: Any, learnt: NDArray[Any]) -> Head | None:
        """A linear head for sparse features of length one, such as n-grams, with fixed settings; None where the
        features are compared as they are.

        Args:
            features: (rows, features) float32, a scipy CSR matrix.
            learnt: targets as the loss takes them.
        """

    def finish(self, head: torch.nn.Linear) -> None:
        """Bring a head that was learnt into the user's units, in place; most are there already."""
        return

    def finished(self, head: Head) -> Head:
        """As `finish`, of a solved head."""
        return head

    def unfinished(self, outputs: FloatArray) -> FloatArray:
        """Outputs (rows, width) of a finished model as one that is being tuned gives them; the inverse of `finish`."""
        return outputs

    def in_units(self) -> Objective:
        """The objective of a finished model, whose outputs are in the user's units already."""
        return self

    @abstractmethod
    def head_spec(self, held_out: HeldOut) -> HeadSpec:
        """How a finished model's outputs become answers; `held_out` is asked only where something is to be chosen."""

    def untuned_head(self) -> HeadSpec:
        """How outputs would become answers before anything is tuned."""
        nothing = np.zeros((0, self.width), dtype=np.float32)
        return self.head_spec(lambda: (nothing.astype(bool), nothing))

    def agreement(self, answers: NDArray[Any], others: NDArray[Any]) -> float:
        """Share of rows with the same answer, 0 to 1."""
        return float(np.mean((answers == others).reshape(len(answers), -1).all(axis=1)))

    @abstractmethod
    def constants(self, expected: NDArray[Any]) -> NDArray[Any]:
        """The constant answers that may be best by some metric, one entry each; from training targets, at least one."""

    def second_metric(self, expected: NDArray[Any]) -> Metric | None:
        """What candidates are judged by beside the metric, from training targets; None where that says enough."""
        return None

    def figures(self, expected: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        """Further figures of answers for the report, by name, beside the task's metrics."""
        return {}

    def confusions(self, expected: NDArray[Any], answers: NDArray[Any], inputs: Sequence[Input]) -> list[Confusion]:
        """The pairs of labels that are mistaken most often, each with an example; none where there is no such thing."""
        return []

    def classes(self, expected: NDArray[Any], answers: NDArray[Any]) -> list[ClassQuality]:
        """Precision, recall and F1 of each label, lowest F1 first; none where there are no labels."""
        return []


class LabelObjective(Objective):
    """What is learnt of labels: an output a label.

    Attributes:
        problem_type: as a transformers config names it.
    """

    problem_type: ClassVar[str]

    @property
    def width(self) -> int:
        return len(self.labels)

    def configure(self, config: Any) -> None:
        config.num_labels = len(self.labels)
        config.id2label = dict(enumerate(self.labels))
        config.label2id = {label: place for place, label in enumerate(self.labels)}
        config.problem_type = self.problem_type

    @property
    def strengths(self) -> tuple[float, ...]:
        return LABEL_STRENGTHS


class TokenObjective(LabelObjective):
    """What is learnt of tokens: an output a tag for each token.

    `learnt` are tags, `UNSEEN` where nothing is learnt; logits of a model that is being tuned are `visible` first.
    """

    per_token: ClassVar[bool] = True

    @property
    @abstractmethod
    def outside(self) -> int:
        """The tag of a token that belongs to nothing."""

    @abstractmethod
    def tags(self, text: EncodedTokens, target: Target) -> list[list[int]]:
        """The tag of each token of each window of a text: `UNSEEN` of special ones."""


def support_vectors(features: Any, learnt: NDArray[Any]) -> Head:
    """One linear support vector machine a class against the rest (Fan et al., LIBLINEAR, JMLR 9, 2008), C = 1.

    A row an output, in the order of the classes; of two classes a single row, of one class none.

    Args:
        features: (rows, features) float32, a scipy CSR matrix.
        learnt: class numbers, (rows,).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    if len(np.unique(learnt)) < 2:
        return Head(np.zeros((0, features.shape[1]), np.float32), np.zeros(0, np.float32))
    # LIBLINEAR's own tolerance: scikit-learn's is a thousand times as strict and changes no answer in a thousand.
    model = LinearSVC(C=1.0, tol=0.1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, learnt)
    return Head(model.coef_.astype(np.float32), model.intercept_.astype(np.float32))


def label_qualities(
    expected: NDArray[np.bool_], answers: NDArray[np.bool_], labels: Sequence[str]
) -> list[ClassQuality]:
    """Precision, recall and F1 of each label that some row expects, lowest F1 first; arguments (rows, labels) bool."""
    right, given, wanted = ((expected & answers).sum(axis=0), answers.sum(axis=0), expected.sum(axis=0))
    qualities = [
        ClassQuality(
            label=labels[place],
            precision=float(right[place] / max(given[place], 1)),
            recall=float(right[place] / wanted[place]),
            f1=float(2 * right[place] / (given[place] + wanted[place])),
            rows=int(wanted[place]),
        )
        for place in np.flatnonzero(wanted).tolist()
    ]
    return sorted(qualities, key=lambda quality: quality.f1)
