"""The logits of each evaluation, kept beside the checkpoints: what rounds are compared by, and what is handed on.

A continued run reads them again, so that it stops where an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import TrainerCallback

from edgetune.tune.tasks.objective import Objective
from edgetune.tune.training.gain import paired_gain
from edgetune.tune.training.processes import is_main

if TYPE_CHECKING:
    from transformers import EvalPrediction, TrainerControl, TrainerState, TrainingArguments


# Rows whose loss is taken together: a table of 16 MB.
MOST_TOGETHER = 2_000


class Evaluations(TrainerCallback):
    """Measures the evaluations of one training, and stops it after rounds without a significant gain.

    Args:
        objective: what is learnt.
        order: the validation row that each evaluated row is, (rows,) int64.
        folder: of the checkpoints.
        round_epochs: of a round; 0 for a training that is not stopped here.
        patience: rounds without gain after which training stops.
        reference: answers to the validation rows before training, as the metric takes them.
    """

    def __init__(
        self,
        objective: Objective,
        order: Sequence[int],
        folder: Path,
        *,
        round_epochs: int,
        patience: int,
        reference: NDArray[Any],
    ) -> None:
        self._objective, self._folder = objective, folder
        self._places = np.argsort(np.asarray(order, dtype=np.int64))
        self._round_epochs, self._patience, self._reference = round_epochs, patience, reference
        self._expected: NDArray[Any] = reference
        self._latest = np.zeros((0, objective.width), dtype=np.float32)
        self._logits: dict[float, NDArray[np.float32]] = {
            float(path.stem.rpartition("-")[2]): np.load(path, allow_pickle=False)
            for path in folder.glob("logits-*.npy")
        }

    def measure(self, output: EvalPrediction) -> dict[str, float]:
        """The metric of an evaluation; what the Trainer calls."""
        objective = self._objective
        labels = np.asarray(output.label_ids)[self._places]
        self._expected = objective.restored(labels)
        self._latest = objective.visible(np.asarray(output.predictions, dtype=np.float32)[self._places], labels)
        measured = {"value": objective.metric.of(self._expected, objective.answers(self._latest))}
        if objective.rows_together:
            measured["loss"] = self._loss_together(labels)
        return measured

    def _loss_together(self, learnt: NDArray[Any]) -> float:
        """The loss of rows beside each other, over the part and not by batches, which are of like lengths."""
        rows = self._objective.drawn(list(learnt), MOST_TOGETHER, seed=0)
        logits, targets = torch.from_numpy(self._latest[rows]), torch.from_numpy(learnt[rows])
        return float(self._objective.loss(logits, targets, None)) / targets.numel()

    def at(self, epoch: float) -> NDArray[np.float32]:
        """The logits (rows, outputs) of the validation rows, in their own order, after an epoch."""
        return self._logits[round(epoch, 4)]

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        """File the logits; stop where the last rounds gained nothing."""
        epoch = round(state.epoch or 0.0, 4)
        self._logits[epoch] = self._latest
        if is_main():
            self._folder.mkdir(parents=True, exist_ok=True)
            part = self._folder / "part.npy"
            np.save(part, self._latest, allow_pickle=False)
            part.rename(self._folder / f"logits-{epoch:.4f}.npy")  # what is there is whole
        ends_round = self._round_epochs and epoch % self._round_epochs == 0
        if ends_round and self._rounds_without_gain(round(epoch)) >= self._patience:
            control.should_training_stop = True
        return control

    def _rounds_without_gain(self, epoch: int) -> int:
        """How many rounds up to `epoch`, the last ones, gained nothing over the best answers before them."""
        best, without = self._reference, 0
        for end in range(self._round_epochs, epoch + 1, self._round_epochs):
            answers = self._objective.answers(self._logits[end])
            if paired_gain(self._objective.metric, self._expected, best, answers).is_significant:
                best, without = answers, 0
            else:
                without += 1
        return without
