"""Supervised fine-tuning of a language model through TRL's SFTTrainer, on rows that are encoded already."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from edgetune.tune.stepwise.batches import pad_rows
from edgetune.tune.stepwise.language_trainer import (
    LanguagePlan,
    LanguageResult,
    LanguageTrainer,
    Run,
    shared_arguments,
)
from edgetune.tune.stepwise.perplexity import measure_perplexity
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.traces import EncodedRow
from edgetune.tune.training.batches import EpochSampler, shortest_first
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model


def train_language_model(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: Sequence[EncodedRow],
    validation_rows: Sequence[EncodedRow],
    *,
    recipe: GenerationTuneRecipe,
    plan: LanguagePlan,
    folder: Path,
    progress: Progress,
) -> LanguageResult:
    """Train `model` in place, from the last checkpoint in `folder` if there is one, and restore its best epoch.

    Rows are dicts of input_ids, labels (-100 where no loss is wanted) and, all or none of a part, position_ids.

    Raises:
        Interrupted, OutOfMemory, ModelError: as `Run.train` does.
    """
    return Run(recipe, plan, train_rows, folder, progress).train(
        model,
        lambda callbacks: _SupervisedTrainer(
            plan=plan,
            model=model,
            args=_arguments(recipe, plan, folder),
            train_dataset=Dataset.from_list(list(train_rows)),
            eval_dataset=shortest_first(validation_rows),
            data_collator=pad_rows,
            processing_class=tokenizer,
            callbacks=callbacks,
        ),
        _summary,
    )


def _arguments(recipe: GenerationTuneRecipe, plan: LanguagePlan, folder: Path) -> SFTConfig:
    return SFTConfig(
        **shared_arguments(recipe, plan, folder),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        label_names=["labels"],
    )


class _SupervisedTrainer(LanguageTrainer, SFTTrainer):
    """TRL's trainer, evaluated by token."""

    def evaluated(self) -> tuple[float, float]:
        """Mean loss of a token, and share of tokens that were the first choice."""
        perplexity = measure_perplexity(self.model, self.eval_dataset)
        return perplexity.loss, perplexity.token_accuracy

    def _get_train_sampler(self, train_dataset: object = None) -> EpochSampler:
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        return EpochSampler(self.args.train_batch_size * self.args.gradient_accumulation_steps, lengths, self.args.seed)


def _summary(metrics: Mapping[str, float]) -> str:
    perplexity = math.exp(min(metrics["eval_loss"], 700.0))
    return f"validation perplexity {perplexity:.4g}, token accuracy {metrics['eval_value']:.4f}"
