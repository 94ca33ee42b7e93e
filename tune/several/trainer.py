"""Training several tasks together, on the trainer of one: batches of one task each, judged by the mean of all gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerControl

from edgetune.serve.report import CurvePoint
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import row_logits
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.several.sampling import TaskSampler, batches_of
from edgetune.tune.several.shared_trunk import TASK, SharedTrunk
from edgetune.tune.tasks.objective import Objective
from edgetune.tune.training.checkpoints import train_from_checkpoint
from edgetune.tune.training.curve import curve_of
from edgetune.tune.training.interruption import StopOnInterrupt
from edgetune.tune.training.memory import told_out_of_memory
from edgetune.tune.training.pace import best_pace
from edgetune.tune.training.progress import Progress
from edgetune.tune.training.reporters import keep_event_files
from edgetune.tune.training.steps import StepReporter
from edgetune.tune.training.token_probe import padded_tags
from edgetune.tune.training.trainer import (
    HeadTrainer,
    TrainingPlan,
    TrainingResult,
    loss_of,
    remedies,
    training_arguments,
)

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Lesson:
    """One task as it is learnt beside others.

    Attributes:
        name: of the task.
        model: whole, with the trunk of all.
        encoder, objective: its own.
        train, validation: rows as the Trainer takes them.
        start: the value of the metric before training.
        weight: of its loss.
        class_weights: of its outputs in the loss.
    """

    name: str
    model: Any
    encoder: Encoder
    objective: Objective
    train: Rows
    validation: Rows
    start: float
    weight: float
    class_weights: tuple[float, ...] | None

    def logits(self, *, bf16: bool) -> NDArray[np.float32]:
        """What the model gives for the validation rows, as the objective's `answers` takes it."""
        rows = [{name: values for name, values in row.items() if name != "labels"} for row in self.validation]
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=bf16):
            given = row_logits(self.model, self.encoder, rows, batch_size=64)
        if not self.objective.per_token:
            return np.stack(given)
        padded = np.zeros((len(given), max(len(row) for row in given), given[0].shape[-1]), dtype=np.float32)
        for place, row in enumerate(given):
            padded[place, : len(row)] = row
        return padded

    @property
    def learnt(self) -> NDArray[Any]:
        """The targets of the validation rows, as the loss takes them."""
        if self.objective.per_token:
            return padded_tags(self.validation)
        return np.asarray([row["labels"] for row in self.validation])

    def measured(self, logits: NDArray[np.float32]) -> tuple[float, float]:
        """The metric of the validation rows, and the mean loss."""
        learnt = self.learnt
        labels = torch.from_numpy(learnt)
        loss = loss_of(self.objective, None)({"logits": torch.from_numpy(logits)}, labels)
        return self.objective.value(learnt, logits), float(loss)

    def gain(self, value: float) -> float:
        """What a value gains over the start: of a score the difference, of an error the share that it falls by."""
        return -float(self.objective.metric.loss(np.asarray(self.start), np.asarray(value)))


class _Losses:
    """The loss of the task that a batch is of, times the task's weight, as the Trainer calls it."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self._losses = [(lesson.weight, loss_of(lesson.objective, lesson.class_weights)) for lesson in lessons]
        self.of_batch = 0

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        weight, loss = self._losses[self.of_batch]
        total: torch.Tensor = weight * loss(outputs, labels, num_items_in_batch)
        return total


class TasksTrainer(HeadTrainer):
    """The trainer of one task, with batches, loss and evaluation of several: `teaches` says which.

    Its `compute_loss_func` is a `_Losses`.
    """

    def teaches(self, lessons: Sequence[Lesson], sampling: float) -> None:
        """Set the tasks, and the power of their sizes by which batches are drawn; before training begins."""
        self._lessons, self._sampling = lessons, sampling

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self.compute_loss_func.of_batch = int(inputs[TASK][0])
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        # A file of tensors holds none twice, and T5's table of tokens has two names.
        state = self.model.state_dict() if state_dict is None else state_dict
        names = {values.data_ptr(): name for name, values in reversed(state.items())}
        super()._save(output_dir, {name: state[name] for name in state if names[state[name].data_ptr()] == name})

    def _get_train_sampler(self, train_dataset: Any = None) -> TaskSampler:
        lengths = [[lesson.encoder.size(row) for row in lesson.train] for lesson in self._lessons]
        return TaskSampler(lengths, self.args.train_batch_size, self._sampling, self.args.seed)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Each task by its own metric; `eval_value` is the mean of what they gained, `eval_loss` that of the losses."""
        measured: dict[str, float] = {}
        gains, losses = [], []
        for lesson in self._lessons:
            value, loss = lesson.measured(lesson.logits(bf16=self.plan.bf16))
            gains.append(lesson.gain(value))
            losses.append(loss)
            measured |= {f"eval_of.{lesson.name}": value, f"eval_loss_of.{lesson.name}": loss}
        metrics = {"eval_value": float(np.mean(gains)), "eval_loss": float(np.mean(losses)), **measured}
        self.log(metrics)
        control: TrainerControl = self.control  # type: ignore[has-type]  # of the library
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics


def train_together(
    model: SharedTrunk,
    lessons: Sequence[Lesson],
    *,
    recipe: TuneRecipe,
    sampling: float,
    plan: TrainingPlan,
    folder: Path,
    progress: Progress,
) -> list[TrainingResult]:
    """Train all tasks in place, from the last checkpoint in `folder` if there is one, and restore the best epoch.

    Returns:
        The result of each task, whose best epoch is the one with the largest mean gain.

    Raises:
        Interrupted, OutOfMemory: as `train` of one task.
    """
    numbered = [
        [{**row, TASK: number} for row in rows] for number, rows in enumerate(lesson.train for lesson in lessons)
    ]
    first = lessons[0]
    sizes = [len(rows) for rows in numbered]
    batch_size = recipe.step_rows(per_token=False)
    steps = math.ceil(sum(batches_of(sizes, batch_size, sampling)) * plan.epochs)
    with (
        told_out_of_memory(
            plan.device,
            lambda: remedies(recipe, plan, max(first.encoder.size(row) for rows in numbered for row in rows)),
        ),
        best_pace(
            model.first,
            first.encoder,
            first.train,
            batch_size,
            plan.pass_tokens,
            bf16=plan.bf16,
            steps=steps,
            folder=folder,
        ) as pace,
    ):
        stopper, patience = StopOnInterrupt(), EarlyStoppingCallback(plan.patience)
        trainer = TasksTrainer(
            compute_loss_func=_Losses(lessons),
            plan=plan,
            objective=first.objective,
            encoder=first.encoder,
            stored=None,
            model=model,
            args=training_arguments(recipe, plan, first.objective, folder),
            train_dataset=[row for rows in numbered for row in rows],
            eval_dataset=list(first.validation),
            data_collator=_Collator(lessons),
            processing_class=first.encoder.tokenizer,
            callbacks=[patience, StepReporter(progress, _evaluation_line), stopper],
        )
        trainer.teaches(lessons, sampling)
        trainer.args.per_device_train_batch_size = batch_size  # whatever the first task takes alone
        trainer.args.greater_is_better = True  # the mean gain, whatever the metrics are
        trainer.remove_callback(PrinterCallback)
        keep_event_files(trainer, folder.parent / "runs")
        train_from_checkpoint(trainer, stopper, patience, folder, progress)
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    history, epochs = trainer.state.log_history, float(trainer.state.epoch or 0)
    best = max(curve_of(history), key=lambda point: point.validation_value)
    return [
        TrainingResult(
            method=plan.method,
            curve=_curve(history, lesson.name),
            best_value=next(
                point.validation_value for point in _curve(history, lesson.name) if point.epoch == best.epoch
            ),
            best_epoch=best.epoch,
            best_logits=_visible(lesson, plan.bf16),
            epochs=epochs,
            pace=pace,
        )
        for lesson in lessons
    ]


def _visible(lesson: Lesson, bf16: bool) -> NDArray[np.float32]:
    """The logits of the validation rows as `answers` takes them."""
    return lesson.objective.visible(lesson.logits(bf16=bf16), lesson.learnt)


def _curve(history: Sequence[dict[str, float]], name: str) -> tuple[CurvePoint, ...]:
    """The evaluations of one task; the training loss is that of all."""
    renamed = [
        {**entry, "eval_value": entry[f"eval_of.{name}"], "eval_loss": entry[f"eval_loss_of.{name}"]}
        if "eval_value" in entry
        else entry
        for entry in history
    ]
    return curve_of(renamed)


def _evaluation_line(metrics: Mapping[str, float]) -> str:
    values = ", ".join(
        f"{name.partition('.')[2]} {value:.4f}" for name, value in metrics.items() if name.startswith("eval_of.")
    )
    return f"validation {values}; mean gain {100 * metrics['eval_value']:+.2f} points, loss {metrics['eval_loss']:.4f}"


class _Collator:
    """Makes a batch of labelled rows of one task, as its own collator does, with the number of the task."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self._collators = [lesson.encoder.collator() for lesson in lessons]

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        number = rows[0][TASK]
        batch = self._collators[number]([{name: row[name] for name in row if name != TASK} for row in rows])
        batch[TASK] = torch.full((len(rows),), number, dtype=torch.int64)
        return batch
