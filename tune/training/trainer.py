"""Training on the Hugging Face Trainer, so that accelerate, several GPUs and checkpoints come with it.

Ours are only the two learning rates, the loss with class weights, passes of bounded memory and stored activations of
frozen layers. What the trainings of all tasks share stands apart: checkpoints.py, interruption.py, memory.py, steps.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainingArguments,
    get_scheduler,
)

from edgetune.serve.report import CurvePoint
from edgetune.tune.methods.adapters import ADAPTERS
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks.objective import UNSEEN, Objective
from edgetune.tune.training.activations import ROW, StoredStates, stored_activations
from edgetune.tune.training.batches import FORWARD_FACTOR, EpochSampler, RecordSampler, joined_rows
from edgetune.tune.training.checkpoints import train_from_checkpoint
from edgetune.tune.training.curve import curve_of
from edgetune.tune.training.evaluations import Evaluations
from edgetune.tune.training.gradients import GradientRule, RuledTrainer, anchored_names
from edgetune.tune.training.interruption import StopOnInterrupt
from edgetune.tune.training.memory import told_out_of_memory
from edgetune.tune.training.pace import Pace, best_pace
from edgetune.tune.training.progress import Progress
from edgetune.tune.training.rates import Rates
from edgetune.tune.training.reporters import keep_event_files
from edgetune.tune.training.rules import govern
from edgetune.tune.training.steps import StepReporter

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class TrainingPlan:
    """What one training run needs beside the model and the rows, all decided.

    Attributes:
        method: that trains.
        epochs: most passes over the rows.
        round_epochs: passes of a round, over which the rates rise and fall to nothing, so that each round ends with a
            finished model, and another follows only after a significant gain; 0 for rates that fall over all epochs.
        rates: the peak learning rates.
        pass_tokens: most tokens, padding counted, that go through the model at once.
        patience: evaluations without gain after which training stops, of rounds where there are any.
    """

    method: str
    epochs: float
    round_epochs: int
    rates: Rates
    bf16: bool
    device: str
    seed: int
    class_weights: tuple[float, ...] | None
    pass_tokens: int
    patience: int


@dataclass(frozen=True)
class TrainingResult:
    """The best model is in place.

    Attributes:
        method: that trained.
        curve: all evaluations.
        best_value, best_epoch: the best of them.
        best_logits: of the best model for the validation rows, (rows, outputs) float32.
        epochs: that were run.
        pace: how they were run.
    """

    method: str
    curve: tuple[CurvePoint, ...]
    best_value: float
    best_epoch: float
    best_logits: NDArray[np.float32]
    epochs: float
    pace: Pace


def train(
    model: Any,
    encoder: Encoder,
    train_rows: Rows,
    validation_rows: Rows,
    objective: Objective,
    *,
    recipe: TuneRecipe,
    plan: TrainingPlan,
    reference: NDArray[Any],
    folder: Path,
    progress: Progress,
    rules: Sequence[GradientRule] = (),
) -> TrainingResult:
    """Train `model` in place, from the last checkpoint in `folder` if there is one, and restore its best epoch.

    Rows are dicts of input_ids, attention_mask [, token_type_ids] and labels, the target as the loss takes it.

    Args:
        reference: answers to the validation rows, as the metric takes them, over which the first round has to gain.
        rules: that change gradients, beside those of the recipe.

    Raises:
        Interrupted: Ctrl-C; a checkpoint of the very step was saved.
        OutOfMemory: with what can be lowered.
    """
    rows = [{**row, ROW: number} for number, row in enumerate([*train_rows, *validation_rows])]
    held: AbstractContextManager[StoredStates | None] = nullcontext()
    if encoder.reads_text:
        held = stored_activations(
            model, encoder.tokenizer, rows, bf16=plan.bf16, pass_tokens=plan.pass_tokens, progress=progress
        )
    evaluated = sorted(rows[len(train_rows) :], key=encoder.size)
    order = [row[ROW] - len(train_rows) for row in evaluated]
    rounds = {"round_epochs": plan.round_epochs, "patience": plan.patience}
    evaluations = Evaluations(objective, order, folder, **rounds, reference=reference)
    with (
        told_out_of_memory(plan.device, lambda: remedies(recipe, plan, max(map(encoder.size, rows)))),
        best_pace(
            model,
            encoder,
            train_rows,
            step_rows := recipe.step_rows(per_token=objective.per_token),
            plan.pass_tokens,
            bf16=plan.bf16,
            steps=math.ceil(len(train_rows) / step_rows * plan.epochs),
            folder=folder,
        ) as pace,
        held as stored,
    ):
        # Where rounds decide, no evaluation within one ends the training.
        stopper = StopOnInterrupt()
        patience = EarlyStoppingCallback(plan.patience if not plan.round_epochs else len(rows))
        trainer = HeadTrainer(
            plan=plan,
            objective=objective,
            encoder=encoder,
            stored=stored,
            model=model,
            args=training_arguments(recipe, plan, objective, folder),
            train_dataset=rows[: len(train_rows)],
            eval_dataset=evaluated,
            data_collator=encoder.collator(),
            processing_class=encoder.tokenizer,
            compute_metrics=evaluations.measure,
            compute_loss_func=loss_of(objective, plan.class_weights),
            callbacks=[patience, evaluations, StepReporter(progress, _evaluation_line), stopper],
        )
        govern(trainer, model, recipe, head=plan.rates.head_names, folder=folder, more=rules)
        trainer.remove_callback(PrinterCallback)
        keep_event_files(trainer, folder.parent / "runs")
        train_from_checkpoint(trainer, stopper, patience, folder, progress)
        # accelerate leaves its bf16 autocast around `forward`, and the merge proof would compare bf16 with fp32.
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    curve, epochs = curve_of(trainer.state.log_history), float(trainer.state.epoch or 0)
    best = (max if objective.metric.higher_is_better else min)(curve, key=lambda point: point.validation_value)
    of_best = (best.validation_value, best.epoch, evaluations.at(best.epoch))
    return TrainingResult(plan.method, curve, *of_best, epochs, pace)


def _evaluation_line(metrics: Mapping[str, float]) -> str:
    return f"validation {metrics['eval_value']:.4f}, loss {metrics['eval_loss']:.4f}"


def remedies(recipe: TuneRecipe, plan: TrainingPlan, longest: int) -> list[str]:
    """What lowers the memory that training takes, the cheapest first."""
    can = []
    if plan.pass_tokens > longest:
        can.append(f"tune.pass_tokens (now {plan.pass_tokens:,}), the tokens that go through the model at once")
    can.append(f"tune.max_tokens (the longest row has {longest:,})")
    if recipe.lora.top_layers == "all" and plan.method in ADAPTERS:
        can.append("tune.lora.top_layers, which is all")
    if plan.method == "freeze":
        can.append("tune.freeze.top_layers")
    if plan.method in {"full", "layers"}:
        can.append("tune.method: lora, which keeps no optimizer states of the frozen weights")
    can.append("tune.method: probe, which trains the head alone")
    return can


def training_arguments(recipe: TuneRecipe, plan: TrainingPlan, objective: Objective, folder: Path) -> TrainingArguments:
    """What the Trainer is told of a training, with its checkpoints in `folder`."""
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=plan.epochs,
        per_device_train_batch_size=recipe.step_rows(per_token=objective.per_token) * max(1, objective.rows_together),
        per_device_eval_batch_size=64,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        learning_rate=plan.rates.trunk,
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
        greater_is_better=objective.metric.higher_is_better,
        bf16=plan.bf16,
        use_cpu=plan.device == "cpu",
        seed=plan.seed,
        data_seed=plan.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=plan.device == "cuda",
        disable_tqdm=True,
        report_to=list(recipe.report_to) or "none",
        log_level="error",
    )


def loss_of(objective: Objective, weights: tuple[float, ...] | None) -> Any:
    """The mean loss over a batch, as the Trainer calls it: outputs, labels and how many items there are."""

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs["logits"].float()
        weight = None if weights is None else torch.tensor(weights, device=logits.device)
        total = objective.loss(logits, labels, weight)
        return total / (num_items_in_batch if num_items_in_batch is not None else len(labels))

    return loss


def _repeated(rate: Callable[[int], float], steps: int) -> Callable[[int], float]:
    """A schedule that begins anew every so many steps."""
    return lambda step: rate(step % steps)


def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Of the generators that dropout draws from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_random_state(state: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


class HeadTrainer(RuledTrainer):
    """The Trainer with a learning rate of its own for the head, and an order of rows that a continued run repeats.

    A batch goes through the model in passes of bounded memory, and from stored activations where there are any.
    """

    def __init__(
        self,
        *,
        plan: TrainingPlan,
        objective: Objective,
        encoder: Encoder,
        stored: StoredStates | None,
        **arguments: Any,
    ) -> None:
        self.plan, self._objective, self._encoder = plan, objective, encoder
        self._stored = stored
        super().__init__(**arguments)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        # The loss is a sum over rows divided by the whole batch's, so that the passes' gradients add up to its own.
        items = len(inputs["labels"]) if num_items_in_batch is None else num_items_in_batch
        *first, last = self._encoder.split(inputs, self.plan.pass_tokens)
        if first and self._objective.rows_together:
            return self._cached_step(model, [*first, last], items)
        losses = []
        for part in first:
            with self.accelerator.no_sync(model):  # other processes may have another number of passes
                losses.append(super().training_step(model, part, items))
        losses.append(super().training_step(model, last, items))
        return torch.stack(losses).sum()

    def _cached_step(self, model: Any, parts: list[dict[str, Any]], items: Any) -> torch.Tensor:
        """A step of a loss that compares rows of several passes (Gao et al. 2021, arXiv 2101.06983).

        All rows' outputs are computed without gradients, the loss gives the gradient of each, and every pass is run
        again, with the same dropout, to carry its rows' gradients on.
        """
        model.train()
        parts = [self._prepare_inputs(part) for part in parts]
        states, outputs = [], []
        for part in parts:
            states.append(_random_state())
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs.append(model(**self._entered(part)).logits.float())
        logits = torch.cat(outputs).requires_grad_()
        loss = self.compute_loss_func({"logits": logits}, torch.cat([part["labels"] for part in parts]), items)
        (gradient,) = torch.autograd.grad(loss, logits)
        after = _random_state()
        for part, state, share in zip(
            parts, states, torch.split(gradient, [len(rows) for rows in outputs]), strict=True
        ):
            _set_random_state(state)
            with nullcontext() if part is parts[-1] else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    again = model(**self._entered(part)).logits.float()
                self.accelerator.backward((again * share).sum())
        _set_random_state(after)
        return loss.detach()

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        parts = self._encoder.split(self._prepare_inputs(inputs), FORWARD_FACTOR * self.plan.pass_tokens)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = joined_rows([model(**self._entered(part)).logits.float() for part in parts], UNSEEN)
        labels = joined_rows([part["labels"] for part in parts], UNSEEN)
        if self._objective.rows_together:
            return None, logits, labels  # Evaluations has the loss, of rows that no batch of this order joins
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

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        if self._objective.rows_together:
            return RecordSampler(self._objective, self.train_dataset, self.args.train_batch_size, self.args.seed)
        lengths = [self._encoder.size(row) for row in self.train_dataset]
        rows_a_step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return EpochSampler(rows_a_step, lengths, self.args.seed, self._encoder.begin_epoch)

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler:
        return SequentialSampler(eval_dataset)  # in their own order, which is by length, and which answers keep

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if getattr(self, "optimizer", None) is None:
            model = self.model if model is None else model
            self.optimizer = self.plan.rates.optimizer(
                model,
                weight_decay=self.args.weight_decay,
                decayed=set(self.get_decay_parameter_names(model)),
                anchored=anchored_names(self.rules),
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if not self.plan.round_epochs:
            return super().create_scheduler(num_training_steps, optimizer)
        optimizer = self.optimizer if optimizer is None else optimizer
        steps = max(1, round(num_training_steps * self.plan.round_epochs / self.plan.epochs))
        of_round = get_scheduler(
            self.args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=self.args.get_warmup_steps(steps),
            num_training_steps=steps,
        )
        self.lr_scheduler = LambdaLR(optimizer, [_repeated(rate, steps) for rate in of_round.lr_lambdas])
        return self.lr_scheduler
