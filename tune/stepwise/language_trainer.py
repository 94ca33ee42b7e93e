"""What every training of a language model through TRL shares: safe settings, silence, rates, and the run itself.

Ours are the settings that are safe on a CPU (TRL turns bf16 and gradient checkpointing on by itself), an evaluation of
our own, and an order of rows that a continued run repeats. TRL would report every training to its makers and write a
card into every checkpoint: neither happens here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from edgetune.serve.errors import ModelError
from edgetune.serve.report import CurvePoint
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.traces import EncodedRow, longest_side
from edgetune.tune.training.checkpoints import train_from_checkpoint
from edgetune.tune.training.curve import curve_of
from edgetune.tune.training.gradients import RuledTrainer, anchored_names
from edgetune.tune.training.interruption import StopOnInterrupt
from edgetune.tune.training.memory import told_out_of_memory
from edgetune.tune.training.progress import Progress
from edgetune.tune.training.rates import Rates
from edgetune.tune.training.reporters import keep_event_files
from edgetune.tune.training.rules import govern
from edgetune.tune.training.steps import StepReporter

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model

_COST = "gradient checkpointing computes each layer twice; qlora saves memory, not time"


@dataclass(frozen=True)
class LanguagePlan:
    """What one training run needs beside the model, the rows and the recipe, all decided."""

    epochs: float
    rates: Rates
    bf16: bool
    device: str
    seed: int


@dataclass(frozen=True)
class LanguageResult:
    """The best epoch is in place: `best_loss` was reached at `best_epoch`; `curve` has all."""

    curve: tuple[CurvePoint, ...]
    best_loss: float
    best_epoch: float
    epochs: float


@dataclass(frozen=True)
class Run:
    """One training: the recipe and the plan, the folder of its checkpoints, and who is told.

    Attributes:
        rows: that are learnt, for what is said where memory ends.
    """

    recipe: GenerationTuneRecipe
    plan: LanguagePlan
    rows: Sequence[EncodedRow]
    folder: Path
    progress: Progress

    def train(
        self,
        model: Model,
        make: Callable[[list[TrainerCallback]], LanguageTrainer],
        describe: Callable[[Mapping[str, float]], str],
    ) -> LanguageResult:
        """Train `model` in place, from the last checkpoint if there is one, and restore its best epoch.

        Args:
            make: the trainer with these callbacks, of `model`.
            describe: says what an evaluation found, of its metrics by name.

        Raises:
            Interrupted: Ctrl-C; a checkpoint of the very step was saved.
            OutOfMemory: with what can be lowered.
            ModelError: training diverged.
        """
        stopper, patience = StopOnInterrupt(), EarlyStoppingCallback(self.recipe.patience)
        inside = model.get_base_model() if hasattr(model, "get_base_model") else model
        forward, use_cache = vars(inside).get("forward"), inside.config.use_cache
        with told_out_of_memory(self.plan.device, lambda: _remedies(self.recipe, self.rows), cost=_COST):
            trainer = make([patience, StepReporter(self.progress, describe), stopper])
            govern(trainer, model, self.recipe, head=(), folder=self.folder)
            trainer.remove_callback(PrinterCallback)
            keep_event_files(trainer, self.folder.parent / "runs")
            try:
                train_from_checkpoint(trainer, stopper, patience, self.folder, self.progress)
            finally:
                # accelerate leaves its bf16 autocast around `forward`, TRL its head that gives no logits, and the
                # Trainer a config with which the tuned model would generate without its cache.
                trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
                _restore_forward(inside, forward)
                inside.config.use_cache = use_cache
        return _result(trainer.state.log_history, float(trainer.state.epoch or 0))


def shared_arguments(recipe: GenerationTuneRecipe, plan: LanguagePlan, folder: Path) -> dict[str, Any]:
    """Arguments that the configurations of all TRL's trainers take."""
    return {
        "output_dir": str(folder),
        "num_train_epochs": plan.epochs,
        "per_device_train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "activation_checkpointing": recipe.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "learning_rate": plan.rates.trunk,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.weight_decay,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "bf16": plan.bf16,
        "use_cpu": plan.device == "cpu",
        "seed": plan.seed,
        "data_seed": plan.seed,
        "remove_unused_columns": False,
        "dataloader_pin_memory": plan.device == "cuda",
        "disable_tqdm": True,
        "report_to": list(recipe.report_to) or "none",
        "log_level": "error",
    }


class LanguageTrainer(RuledTrainer):
    """What is added to one of TRL's trainers: silence, fp32, an evaluation of our own, our rates and rules."""

    def __init__(self, *, plan: LanguagePlan, **arguments: Any) -> None:
        self._plan = plan
        super().__init__(**arguments)
        for weight in self.model.parameters():
            if weight.requires_grad:
                # Over quantized weights TRL makes adapters bf16, in which small updates are rounded away.
                weight.data = weight.data.float()

    @abstractmethod
    def evaluated(self) -> tuple[float, float]:
        """Loss, by which the best epoch is chosen, and value of the model as it stands, on the validation rows.

        Raises:
            ModelError: its logits are no numbers.
        """

    def _send_telemetry(self) -> None:
        """Nothing is reported."""

    def create_model_card(self, model_name: object = None, dataset_name: object = None, tags: object = None) -> None:
        """No card is written into checkpoints."""

    def evaluation_loop(
        self,
        dataloader: object,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: object = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        # The Trainer's mean is over batches: a batch of few answer tokens would count as much as one of many.
        try:
            loss, value = self.evaluated()
        except ModelError as error:
            raise ModelError(
                f"Training diverged: after epoch {self.state.epoch:.1f} the loss is no number.",
                expected="a finite loss on the validation rows",
                action=f"lower tune.learning_rate, which was {self._plan.rates.trunk:g}",
            ) from error
        metrics = {f"{metric_key_prefix}_loss": loss, f"{metric_key_prefix}_value": value}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(self.eval_dataset))

    def create_optimizer(self, model: Model = None) -> torch.optim.Optimizer:
        if getattr(self, "optimizer", None) is None:
            self.optimizer = self._plan.rates.optimizer(
                self.model,
                weight_decay=self.args.weight_decay,
                decayed=set(self.get_decay_parameter_names(self.model)),
                anchored=anchored_names(self.rules),
            )
        return self.optimizer


def _restore_forward(model: Model, forward: Any) -> None:
    """Put back what `forward` was before TRL replaced it; None where the class's own was used."""
    if forward is not None:
        model.forward = forward
    else:
        vars(model).pop("forward", None)


def _remedies(recipe: GenerationTuneRecipe, rows: Sequence[EncodedRow]) -> list[str]:
    """What lowers the memory that training takes, the cheapest first."""
    can = []
    if recipe.batch_size > 1:
        can.append(f"tune.batch_size (now {recipe.batch_size}), with tune.gradient_accumulation raised as much")
    can.append(f"data.max_tokens (the longest row has {max(map(longest_side, rows)):,})")
    if not recipe.gradient_checkpointing:
        can.append("tune.gradient_checkpointing: true")
    if recipe.method != "qlora":
        can.append("tune.method: qlora, which holds the frozen weights in 4 bits")
    return can


def _result(history: list[dict[str, float]], epochs: float) -> LanguageResult:
    curve = curve_of(history)
    best = min(curve, key=lambda point: point.validation_loss)
    return LanguageResult(curve, best.validation_loss, best.epoch, epochs)
