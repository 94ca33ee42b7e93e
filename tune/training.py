"""Training on the Hugging Face Trainer, so that accelerate, several GPUs and checkpoints come with it.

Ours are only the two learning rates, the loss with class weights, passes of bounded memory, stored activations of
frozen layers, the bridge to the progress line, and a Ctrl-C that saves a checkpoint before it stops.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME

from edgetune.serve.errors import Interrupted
from edgetune.serve.report import CurvePoint
from edgetune.tune.activations import ROW, StoredStates, stored_activations
from edgetune.tune.batches import FORWARD_FACTOR, EpochSampler, shortest_first, split_by_tokens
from edgetune.tune.progress import Progress
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks.text_classification import Metric

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class TrainingPlan:
    """What one training run needs beside the model and the rows, all decided.

    `pass_tokens` bounds the tokens, padding counted, that go through the model at once; `patience` is in evaluations.
    """

    epochs: float
    trunk_rate: float
    head_rate: float
    head: tuple[str, ...]
    bf16: bool
    device: str
    seed: int
    class_weights: tuple[float, ...] | None
    pass_tokens: int
    patience: int


@dataclass(frozen=True)
class TrainingResult:
    """The best model is in place; `best_epoch` is where it was reached, `curve` all evaluations."""

    curve: tuple[CurvePoint, ...]
    best_value: float
    best_epoch: float
    epochs: float


def automatic_epochs(rows: int, batch_size: int) -> int:
    """3 passes, and more on small data, so that about 300 steps are taken; at most 10."""
    return max(3, min(10, math.ceil(300 / max(1, math.ceil(rows / batch_size)))))


def class_weights(labels: Sequence[int], classes: int) -> tuple[float, ...]:
    """Weights inverse to each class's rows, one on average over the rows (scikit-learn's "balanced")."""
    counts = np.bincount(labels, minlength=classes)
    weights: list[float] = (len(labels) / (classes * np.maximum(counts, 1))).tolist()
    return tuple(weights)


def train(
    model: Any,
    tokenizer: Any,
    train_rows: Rows,
    validation_rows: Rows,
    metric: Metric,
    *,
    recipe: TuneRecipe,
    plan: TrainingPlan,
    folder: Path,
    progress: Progress,
) -> TrainingResult:
    """Train `model` in place, from the last checkpoint in `folder` if there is one, and restore its best epoch.

    Rows are dicts of input_ids, attention_mask [, token_type_ids] and labels.

    Raises:
        Interrupted: Ctrl-C; a checkpoint of the very step was saved.
    """
    rows = [{**row, ROW: number} for number, row in enumerate([*train_rows, *validation_rows])]
    held = stored_activations(model, tokenizer, rows, bf16=plan.bf16, pass_tokens=plan.pass_tokens, progress=progress)
    with held as stored:
        stopper, patience = _StopOnInterrupt(), EarlyStoppingCallback(plan.patience)
        trainer = _ClassifierTrainer(
            plan=plan,
            stored=stored,
            model=model,
            args=_arguments(recipe, plan, folder),
            train_dataset=rows[: len(train_rows)],
            eval_dataset=shortest_first(rows[len(train_rows) :]),
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
            compute_metrics=lambda output: {"value": metric(output.label_ids, output.predictions.argmax(axis=-1))},
            compute_loss_func=_loss(plan.class_weights),
            callbacks=[patience, _Reporter(progress), stopper],
        )
        trainer.remove_callback(PrinterCallback)
        _run(trainer, stopper, patience, folder, progress)
        # accelerate leaves its bf16 autocast around `forward`, and the merge proof would compare bf16 with fp32.
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return _result(trainer.state.log_history, float(trainer.state.epoch or 0))


def _run(
    trainer: Trainer, stopper: _StopOnInterrupt, patience: EarlyStoppingCallback, folder: Path, progress: Progress
) -> None:
    """Train from the last checkpoint, if there is one, to the end or to Ctrl-C."""
    checkpoint = last_whole_checkpoint(folder)
    if checkpoint:
        progress.say(f"training continues from {checkpoint.name}")
        patience.early_stopping_patience_counter = _epochs_without_gain(checkpoint)
    with stopper.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stopper.stopped:
        raise Interrupted(f"Training was stopped at step {trainer.state.global_step}; its checkpoint is kept.")


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was saved to its end; those that a kill or a full disk cut short are removed."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))  # what the Trainer writes last
        except (OSError, ValueError):
            shutil.rmtree(path)
        else:
            return path
    return None


def _epochs_without_gain(checkpoint: Path) -> int:
    """How far the patience had run down; by itself the Trainer would grant it anew with every continuation."""
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    saved = state["stateful_callbacks"][EarlyStoppingCallback.__name__]
    return int(saved["attributes"]["early_stopping_patience_counter"])


def _arguments(recipe: TuneRecipe, plan: TrainingPlan, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=plan.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=64,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        learning_rate=plan.trunk_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="value",
        greater_is_better=True,
        bf16=plan.bf16,
        use_cpu=plan.device == "cpu",
        seed=plan.seed,
        data_seed=plan.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=plan.device == "cuda",
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )


def _loss(weights: tuple[float, ...] | None) -> Any:
    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs["logits"].float()
        weight = None if weights is None else torch.tensor(weights, device=logits.device)
        total = torch.nn.functional.cross_entropy(logits, labels, weight=weight, reduction="sum")
        return total / (num_items_in_batch if num_items_in_batch is not None else len(labels))

    return loss


class _ClassifierTrainer(Trainer):
    """The Trainer with a learning rate of its own for the head, and an order of rows that a continued run repeats.

    A batch goes through the model in passes of bounded memory, and from stored activations where there are any.
    """

    def __init__(self, *, plan: TrainingPlan, stored: StoredStates | None, **arguments: Any) -> None:
        self._plan = plan
        self._stored = stored
        super().__init__(**arguments)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        # The loss is a sum over rows divided by the whole batch's, so that the passes' gradients add up to its own.
        items = len(inputs["labels"]) if num_items_in_batch is None else num_items_in_batch
        *first, last = split_by_tokens(inputs, self._plan.pass_tokens)
        losses = []
        for part in first:
            with self.accelerator.no_sync(model):  # other processes may have another number of passes
                losses.append(super().training_step(model, part, items))
        losses.append(super().training_step(model, last, items))
        return torch.stack(losses).sum()

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        parts = split_by_tokens(self._prepare_inputs(inputs), FORWARD_FACTOR * self._plan.pass_tokens)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = torch.cat([model(**self._entered(part)).logits.float() for part in parts])
        labels = torch.cat([part["labels"] for part in parts])
        return self.compute_loss_func({"logits": logits}, labels), logits, labels

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        with_labels = {**self._entered(inputs), "labels": inputs["labels"]}
        return super().compute_loss(model, with_labels, return_outputs, num_items_in_batch)

    def _entered(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the model takes of a batch, whose stored activations become the current ones."""
        entered = batch if self._stored is None else self._stored.enter(batch)
        return {name: values for name, values in entered.items() if name not in {ROW, "labels"}}

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        lengths = [len(row["input_ids"]) for row in self.train_dataset]
        return EpochSampler(self.args.train_batch_size * self.args.gradient_accumulation_steps, lengths, self.args.seed)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if getattr(self, "optimizer", None) is None:
            model = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(model))
            self.optimizer = torch.optim.AdamW(
                [group for group in self._groups(model, decayed) if group["params"]],
                lr=self._plan.trunk_rate,
                fused=True,
            )
        return self.optimizer

    def _groups(self, model: Any, decayed: set[str]) -> Iterator[dict[str, Any]]:
        trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        for in_head, rate in ((True, self._plan.head_rate), (False, self._plan.trunk_rate)):
            for in_decay in (True, False):
                yield {
                    "params": [
                        weight
                        for name, weight in trained
                        if self._in_head(name) is in_head and (name in decayed) is in_decay
                    ],
                    "lr": rate,
                    "weight_decay": self.args.weight_decay if in_decay else 0.0,
                }

    def _in_head(self, name: str) -> bool:
        return any(part in self._plan.head for part in name.split("."))


class _Reporter(TrainerCallback):
    """Tells the progress line each step and each evaluation."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.advance(
            state.global_step, state.max_steps, f"epoch {state.epoch:.1f} of {state.num_train_epochs}"
        )

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        if metrics:
            self._progress.say(
                f"epoch {state.epoch:.0f}: validation {metrics['eval_value']:.4f}, loss {metrics['eval_loss']:.4f}"
            )


class _StopOnInterrupt(TrainerCallback):
    """Turns the first Ctrl-C into a checkpoint and a stop after the step; a second one stops at once."""

    def __init__(self) -> None:
        self.stopped = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to SIGINT; signals can be caught in the main thread only, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        # The Trainer ends an epoch that is stopped half-way too: judging it would use up patience and bend the curve.
        if self.stopped and abs(state.epoch - round(state.epoch)) > 1e-6:
            control.should_evaluate = control.should_log = control.should_save = False
        return control


def _result(history: list[dict[str, float]], epochs: float) -> TrainingResult:
    losses = {round(entry["epoch"], 4): entry["loss"] for entry in history if "loss" in entry}
    curve = tuple(
        CurvePoint(
            epoch=entry["epoch"],
            train_loss=losses.get(round(entry["epoch"], 4)),
            validation_loss=entry["eval_loss"],
            validation_value=entry["eval_value"],
        )
        for entry in history
        if "eval_value" in entry
    )
    best = max(curve, key=lambda point: point.validation_value)
    return TrainingResult(curve, best.validation_value, best.epoch, epochs)
