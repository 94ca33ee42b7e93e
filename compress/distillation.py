"""Distillation: a student learns the tuned model's answers, which are computed once, as far as its own labels.

The loss is Hinton et al.'s (2015, arXiv 1503.02531), the divergence of the softened answers and a share of the
cross-entropy where a label is known, and TinyBERT's (Jiao et al. 2019, arXiv 1909.10351) on states, here on those that
the head sees. The loop is our own and short: the Trainer has no place for what a teacher said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgetune.compress.seen_embedding import restore_embedding, train_seen_only
from edgetune.compress.soft_labels import SoftLabels, Teacher
from edgetune.tune.models.classifier import head_linear
from edgetune.tune.models.dropout import quicken_dropout
from edgetune.tune.models.forward import length_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from edgetune.tune.training.progress import Progress


@dataclass(frozen=True)
class Schooling:
    """How a student learns.

    Attributes:
        passes: over all texts.
        rate: peak learning rate of AdamW, for all weights.
        batch_size: texts a step.
        temperature: of the softened answers.
        label_share: weight of the cross-entropy on known labels, against 1 for the teacher's answers.
        state_share: weight of the squared distance of the states that the head sees, in units of their mean square.
        warm_up: share of the steps in which the rate rises; then it falls to 0 in a line.
    """

    passes: int
    rate: float
    batch_size: int = 32
    temperature: float = 2.0
    label_share: float = 0.3
    state_share: float = 10.0
    warm_up: float = 0.1
    weight_decay: float = 0.01


# On banking77, 8,992 rows of MiniLM, four passes at this rate take a single layer to 0.3 points below its teacher.
TEXTS_SEEN = 36_000
FEWEST_PASSES, MOST_PASSES = 2, 60
RATE, RATE_WIDTH, HIGHEST_RATE = 5e-4, 384, 2e-3


def schooling_for(texts: int, width: int) -> Schooling:
    """Passes so that about `TEXTS_SEEN` texts are seen, and a rate that falls with the model's width."""
    passes = max(FEWEST_PASSES, min(MOST_PASSES, round(TEXTS_SEEN / texts)))
    return Schooling(passes, min(HIGHEST_RATE, RATE * RATE_WIDTH / width))


@dataclass(frozen=True)
class Learnt:
    """Where a student ended: the best pass, its metric and its agreement with the teacher on the validation part."""

    best_pass: int
    value: float
    agreement: float


def distil(
    student: PreTrainedModel, teacher: Teacher, schooling: Schooling, *, seed: int, progress: Progress
) -> Learnt:
    """Train `student` in place, and leave it with its best pass in evaluation mode on the CPU.

    Passes are judged on the validation part by the metric, an error taken off, and agreement with the teacher together:
    the second moves less by chance. A later pass wins a tie, since the rate is lower there.
    """
    with torch.random.fork_rng(devices=[] if teacher.device == "cpu" else None):
        torch.manual_seed(seed)
        return _Run(student, teacher, schooling, seed).taught(progress)


class _Run:
    """One student's training."""

    def __init__(self, student: PreTrainedModel, teacher: Teacher, schooling: Schooling, seed: int) -> None:
        self._student, self._teacher, self._schooling = student.to(teacher.device), teacher, schooling
        self._drawn = np.random.default_rng(seed)
        if teacher.device == "cpu":
            quicken_dropout(student)
        rows = (*teacher.train.rows, *teacher.validation.rows)
        pads = {teacher.encoder.tokenizer.pad_token_id}
        train_seen_only(student, pads.union(*(row["input_ids"] for row in rows)))
        self._trained = [weight for weight in student.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=schooling.rate, weight_decay=schooling.weight_decay, fused=True
        )
        self._steps = schooling.passes * -(-len(teacher.train) // schooling.batch_size)
        self._step = 0
        self._spread = max(float(np.square(teacher.train.states, dtype=np.float32).mean()), 1e-12)
        self._seen: list[torch.Tensor] = []

    def taught(self, progress: Progress) -> Learnt:
        """Run all passes; the best one's weights are put back at the end."""
        best, weights = Learnt(0, 0.0, -1.0), {}
        sign, most = (1 if self._teacher.objective.metric.higher_is_better else -1), -np.inf
        _, head = head_linear(self._student)
        hook = head.register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0]))
        for number in range(1, self._schooling.passes + 1):
            loss = self._pass(number, progress)
            value, agreement = self._judged()
            progress.say(f"pass {number}: loss {loss:.3f}, validation {value:.4f}, as the teacher {agreement:.4f}")
            if sign * value + agreement >= most:
                best, most = Learnt(number, value, agreement), sign * value + agreement
                weights = {name: weight.detach().clone() for name, weight in self._student.state_dict().items()}
        hook.remove()
        self._student.load_state_dict(weights)
        restore_embedding(self._student)
        self._student.to("cpu").eval()
        return best

    def _pass(self, number: int, progress: Progress) -> float:
        self._student.train()
        losses: list[float] = []
        for batch in self._batches():
            self._set_rate()
            loss = self._loss(self._teacher.train, batch)
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
            self._optimizer.step()
            losses.append(float(loss.detach()))
            self._step += 1
            progress.advance(self._step, self._steps, f"pass {number} of {self._schooling.passes}")
        return float(np.mean(losses))

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        """Rows of like lengths, in an order that is new in each pass."""
        size, rows = self._schooling.batch_size, self._teacher.train.rows
        order = self._drawn.permutation(len(rows))
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), 50 * size):
            near = order[start : start + 50 * size]
            near = near[np.argsort([len(rows[row]["input_ids"]) for row in near], kind="stable")]
            batches += [near[first : first + size] for first in range(0, len(near), size)]
        for place in self._drawn.permutation(len(batches)):
            yield batches[place]

    def _set_rate(self) -> None:
        done, rising = (self._step + 1) / self._steps, self._schooling.warm_up
        share = min(done / rising, (1 - self._step / self._steps) / (1 - rising))
        for group in self._optimizer.param_groups:
            group["lr"] = self._schooling.rate * share

    def _loss(self, labels: SoftLabels, batch: NDArray[np.int64]) -> torch.Tensor:
        objective, device = self._teacher.objective, self._teacher.device
        logits = self._logits(labels, batch)
        answers = torch.from_numpy(labels.answers[batch]).to(device)
        loss = objective.imitation(logits, answers, self._schooling.temperature)
        targets, labelled = (torch.from_numpy(values[batch]).to(device) for values in (labels.targets, labels.known))
        known = objective.loss(logits[labelled], targets[labelled], None) / len(batch)
        states = torch.from_numpy(labels.states[batch].astype(np.float32)).to(device)
        apart = functional.mse_loss(self._seen[-1].float(), states) / self._spread
        return loss + self._schooling.label_share * known + self._schooling.state_share * apart

    def _logits(self, labels: SoftLabels, batch: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        self._seen.clear()
        padded = self._teacher.encoder.pad([labels.rows[row] for row in batch])
        with torch.autocast(self._teacher.device, torch.bfloat16, enabled=self._teacher.bf16):
            return self._student(**padded.to(self._teacher.device)).logits.float()

    def _judged(self) -> tuple[float, float]:
        """The metric on the validation part, and the share of it that is answered as by the teacher."""
        self._student.eval()
        labels, objective = self._teacher.validation, self._teacher.objective
        logits = np.zeros(labels.answers.shape, dtype=np.float32)
        with torch.inference_mode():
            for batch in length_batches([len(row["input_ids"]) for row in labels.rows], 64):
                logits[batch] = self._logits(labels, batch).cpu().numpy()
        value = objective.value(labels.targets, logits)
        return value, objective.agreement(objective.answers(logits), objective.answers(labels.answers))
