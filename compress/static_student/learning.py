"""How the student learns: Adam over all rows on the teacher's answers and the known labels, its best pass kept.

Vectors of a text are its rows' sum over the root of their number, and one linear layer gives the outputs. The product
of rows and layer is all that answers need, but learning both reaches more: rows of few texts lean on directions that
others have learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgetune.compress.static_student.features import Bags
from edgetune.tune.tasks.objective import Objective
from edgetune.tune.training.progress import Progress

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class LearningRows:
    """Inputs as the student sees them, with the teacher's answers to them.

    Attributes:
        bags: the features of each.
        answers: the teacher's outputs (rows, outputs) float32, as a model that is being tuned gives them.
        targets: as the loss takes them (rows, ...); of any value where they are not known.
        known: whether each row has a target (rows,) bool.
    """

    bags: Bags
    answers: FloatArray
    targets: NDArray[Any]
    known: NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    """How it learns.

    Attributes:
        passes: over all rows.
        batch_size: rows a step.
        rate: peak learning rate of Adam.
        temperature: of the softened answers.
        label_share: weight of the loss on known labels, against 1 for the teacher's answers.
        dropout: share of the features of an input that are left out of a step.
        warm_up: share of the steps in which the rate rises; then it falls to 0 in a line.
    """

    passes: int
    batch_size: int = 128
    rate: float = 6e-3
    temperature: float = 2.0
    label_share: float = 3.0
    dropout: float = 0.3
    warm_up: float = 0.1


@dataclass(frozen=True)
class Learnt:
    """What a student has learnt: it answers `vectors @ head + bias`.

    Attributes:
        rows: (features, width) float32.
        head: (width, outputs) float32.
        bias: (outputs,) float32.
    """

    rows: FloatArray
    head: FloatArray
    bias: FloatArray

    def outputs(self, bags: Bags) -> FloatArray:
        """Outputs (inputs, outputs) float32."""
        sums = np.add.reduceat(np.append(self.rows[bags.rows], self.rows[:1], axis=0), bags.starts[:-1])
        sums[bags.counts == 0] = 0  # `reduceat` gives an empty bag the row behind it
        vectors = sums / np.sqrt(np.maximum(bags.counts, 1))[:, None].astype(np.float32)
        return vectors @ self.head + self.bias


def judged(outputs: FloatArray, rows: LearningRows, objective: Objective) -> tuple[float, float]:
    """The metric of outputs (rows, outputs) for rows that have targets, and the share answered as by the teacher."""
    agreement = objective.agreement(objective.answers(outputs), objective.answers(rows.answers))
    return objective.value(rows.targets, outputs), agreement


def averaged(students: Sequence[Learnt]) -> Learnt:
    """One student that answers as the mean of several.

    Outputs are linear in the rows, so rows that are each student's outputs can be averaged, and the mean takes no more
    time and room than any of them; less than one of them where there are fewer outputs than columns.
    """
    outputs = len(students[0].bias)
    rows = np.mean([student.rows @ student.head for student in students], axis=0)
    bias = np.mean([student.bias for student in students], axis=0)
    return Learnt(rows, np.eye(outputs, dtype=np.float32), bias)


class _Student(torch.nn.Module):
    def __init__(self, rows: FloatArray, outputs: int) -> None:
        super().__init__()
        self.rows = torch.nn.Parameter(torch.from_numpy(rows))
        self.head = torch.nn.Parameter(torch.randn(rows.shape[1], outputs) * 0.05)
        self.bias = torch.nn.Parameter(torch.zeros(outputs))

    def forward(self, bags: Bags) -> torch.Tensor:
        """Outputs (inputs, outputs) float32."""
        places, starts = torch.from_numpy(bags.rows), torch.from_numpy(bags.starts[:-1])
        sums = functional.embedding_bag(places, self.rows, starts, mode="sum")
        counts = torch.from_numpy(np.maximum(bags.counts, 1).astype(np.float32))
        return (sums * counts.rsqrt()[:, None]) @ self.head + self.bias


def learn_rows(
    start: FloatArray,
    train: LearningRows,
    validation: LearningRows,
    objective: Objective,
    settings: Settings,
    *,
    seed: int,
    progress: Progress,
) -> Learnt:
    """Learn rows and head from `start` (features, width) float32, and return the best pass.

    Passes are judged on the validation part as those of a student of layers are: by the metric, an error taken off, and
    the agreement with the teacher together. A later pass wins a tie, since the rate is lower there.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        run = _Run(start, train, validation, objective, settings, seed)
        best, most = run.learnt, -np.inf
        sign = 1 if objective.metric.higher_is_better else -1
        for number in range(1, settings.passes + 1):
            loss = run.train_pass()
            value, agreement = run.judge()
            progress.advance(number, settings.passes, f"static: loss {loss:.3f}, validation {value:.4f}")
            if sign * value + agreement >= most:
                best, most = run.learnt, sign * value + agreement
    return best


class _Run:
    """One student's training."""

    def __init__(
        self,
        start: FloatArray,
        train: LearningRows,
        validation: LearningRows,
        objective: Objective,
        settings: Settings,
        seed: int,
    ) -> None:
        self._train, self._validation, self._objective, self._settings = train, validation, objective, settings
        self._student = _Student(start.copy(), train.answers.shape[1])
        self._random = np.random.default_rng(seed)
        self._optimizer = torch.optim.Adam(self._student.parameters(), lr=settings.rate, fused=True)
        self._steps = settings.passes * -(-len(train.bags) // settings.batch_size)
        self._step = 0

    @property
    def learnt(self) -> Learnt:
        """A copy of what is learnt so far."""
        return Learnt(*(weight.detach().numpy().copy() for weight in self._student.parameters()))

    def train_pass(self) -> float:
        """One pass in an order of its own; the mean loss."""
        losses = []
        order = self._random.permutation(len(self._train.bags))
        for first in range(0, len(order), self._settings.batch_size):
            self._set_rate()
            loss = self._loss(order[first : first + self._settings.batch_size])
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self._optimizer.step()
            losses.append(float(loss.detach()))
            self._step += 1
        return float(np.mean(losses))

    def _set_rate(self) -> None:
        done, rising = (self._step + 1) / self._steps, self._settings.warm_up
        share = min(done / rising, (1 - self._step / self._steps) / (1 - rising))
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.rate * share

    def _loss(self, batch: NDArray[np.int64]) -> torch.Tensor:
        settings, objective = self._settings, self._objective
        outputs = self._student(self._train.bags.take(batch).without(settings.dropout, self._random))
        answers = torch.from_numpy(self._train.answers[batch])
        imitation = objective.in_units().imitation(outputs, answers, settings.temperature)
        labelled = self._train.known[batch]
        if not labelled.any():
            return imitation
        targets = torch.from_numpy(self._train.targets[batch[labelled]])
        known = objective.loss(outputs[torch.from_numpy(labelled)], targets, None) / len(batch)
        return imitation + settings.label_share * known

    def judge(self) -> tuple[float, float]:
        """As `judged`, of what is learnt so far."""
        with torch.inference_mode():
            return judged(self._student(self._validation.bags).numpy(), self._validation, self._objective)
