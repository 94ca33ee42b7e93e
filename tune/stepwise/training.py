"""Supervised fine-tuning of a language model through TRL's SFTTrainer, on rows that are encoded already.

Ours are the settings that are safe on a CPU (TRL turns bf16 and gradient checkpointing on by itself), an evaluation
that weighs each token alike, and an order of rows that a continued run repeats.
TRL would report every training to its makers and write a card into every checkpoint: neither happens here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, PrinterCallback
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer

from edgetune.serve.errors import ModelError
from edgetune.serve.report import CurvePoint
from edgetune.tune.stepwise.batches import pad_rows
from edgetune.tune.stepwise.perplexity import measure_perplexity
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.training.batches import EpochSampler, shortest_first
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
    from transformers import PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model

EncodedRows = Sequence[dict[str, list[int]]]

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
    """The best epoch is in place: `best_loss` in nats a token was reached at `best_epoch`; `curve` has all."""

    curve: tuple[CurvePoint, ...]
    best_loss: float
    best_epoch: float
    epochs: float


def train_language_model(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: EncodedRows,
    validation_rows: EncodedRows,
    *,
    recipe: GenerationTuneRecipe,
    plan: LanguagePlan,
    folder: Path,
    progress: Progress,
) -> LanguageResult:
    """Train `model` in place, from the last checkpoint in `folder` if there is one, and restore its best epoch.

    Rows are dicts of input_ids, labels (-100 where no loss is wanted) and, all or none of a part, position_ids.

    Raises:
        Interrupted: Ctrl-C; a checkpoint of the very step was saved.
        OutOfMemory: with what can be lowered.
        ModelError: training diverged.
    """
    stopper, patience = StopOnInterrupt(), EarlyStoppingCallback(recipe.patience)
    inside = model.get_base_model() if hasattr(model, "get_base_model") else model
    forward, use_cache = vars(inside).get("forward"), inside.config.use_cache
    with told_out_of_memory(plan.device, lambda: _remedies(recipe, train_rows), cost=_COST):
        trainer = _LanguageTrainer(
            plan=plan,
            model=model,
            args=_arguments(recipe, plan, folder),
            train_dataset=Dataset.from_list(list(train_rows)),
            eval_dataset=shortest_first(validation_rows),
            data_collator=pad_rows,
            processing_class=tokenizer,
            callbacks=[patience, StepReporter(progress, _summary), stopper],
        )
        govern(trainer, model, recipe, head=(), folder=folder)
        trainer.remove_callback(PrinterCallback)
        keep_event_files(trainer, folder.parent / "runs")
        try:
            train_from_checkpoint(trainer, stopper, patience, folder, progress)
        finally:
            # accelerate leaves its bf16 autocast around `forward`, TRL its head that gives no logits, and the Trainer a
            # config with which the tuned model would generate without its cache.
            trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
            _restore_forward(inside, forward)
            inside.config.use_cache = use_cache
    return _result(trainer.state.log_history, float(trainer.state.epoch or 0))


def _arguments(recipe: GenerationTuneRecipe, plan: LanguagePlan, folder: Path) -> SFTConfig:
    return SFTConfig(
        output_dir=str(folder),
        num_train_epochs=plan.epochs,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        activation_checkpointing=recipe.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=plan.rates.trunk,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        bf16=plan.bf16,
        use_cpu=plan.device == "cpu",
        seed=plan.seed,
        data_seed=plan.seed,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=plan.device == "cuda",
        disable_tqdm=True,
        report_to=list(recipe.report_to) or "none",
        log_level="error",
    )


class _LanguageTrainer(RuledTrainer, SFTTrainer):
    """TRL's trainer, silent, in fp32, evaluated by token, with our rates and rules."""

    def __init__(self, *, plan: LanguagePlan, **arguments: Any) -> None:
        self._plan = plan
        super().__init__(**arguments)
        for weight in self.model.parameters():
            if weight.requires_grad:
                # Over quantized weights TRL makes adapters bf16, in which small updates are rounded away.
                weight.data = weight.data.float()

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
        rows = self.eval_dataset
        try:
            perplexity = measure_perplexity(self.model, rows)
        except ModelError as error:
            raise ModelError(
                f"Training diverged: after epoch {self.state.epoch:.1f} the loss is no number.",
                expected="a finite loss on the validation rows",
                action=f"lower tune.learning_rate, which was {self._plan.rates.trunk:g}",
            ) from error
        metrics = {
            f"{metric_key_prefix}_loss": perplexity.loss,
            f"{metric_key_prefix}_value": perplexity.token_accuracy,
        }
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(rows))

    def _get_train_sampler(self, train_dataset: object = None) -> EpochSampler:
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        return EpochSampler(self.args.train_batch_size * self.args.gradient_accumulation_steps, lengths, self.args.seed)

    def create_optimizer(self, model: Model = None) -> torch.optim.Optimizer:
        if getattr(self, "optimizer", None) is None:
            self.optimizer = self._plan.rates.optimizer(
                self.model,
                weight_decay=self.args.weight_decay,
                decayed=set(self.get_decay_parameter_names(self.model)),
                anchored=anchored_names(self.rules),
            )
        return self.optimizer


def _summary(metrics: Mapping[str, float]) -> str:
    perplexity = math.exp(min(metrics["eval_loss"], 700.0))
    return f"validation perplexity {perplexity:.4g}, token accuracy {metrics['eval_value']:.4f}"


def _restore_forward(model: Model, forward: Any) -> None:
    """Put back what `forward` was before TRL replaced it; None where the class's own was used."""
    if forward is not None:
        model.forward = forward
    else:
        vars(model).pop("forward", None)


def _remedies(recipe: GenerationTuneRecipe, rows: EncodedRows) -> list[str]:
    """What lowers the memory that training takes, the cheapest first."""
    can = []
    if recipe.batch_size > 1:
        can.append(f"tune.batch_size (now {recipe.batch_size}), with tune.gradient_accumulation raised as much")
    can.append(f"data.max_tokens (the longest row has {max(len(row['input_ids']) for row in rows):,})")
    if not recipe.gradient_checkpointing:
        can.append("tune.gradient_checkpointing: true")
    if recipe.method != "qlora":
        can.append("tune.method: qlora, which holds the frozen weights in 4 bits")
    return can


def _result(history: list[dict[str, float]], epochs: float) -> LanguageResult:
    curve = curve_of(history)
    best = min(curve, key=lambda point: point.validation_loss)
    return LanguageResult(curve, best.validation_loss, best.epoch, epochs)
