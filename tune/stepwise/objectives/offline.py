"""DPO, KTO and ORPO through TRL's trainers, on rows that are encoded already.

TRL tokenizes by itself, wants the prompt's tokens to be a prefix of those of prompt and answer, drops long rows without
a word, and keeps or computes a second model for the reference. Here rows are encoded as the rest of a build has them,
with a mask of the answer's tokens, so that no prefix is needed; and the reference is two numbers a pair, taken from the
base itself, once: that needs no copy of weights whatever the method, and is right where switching adapters off would
not give the base back, as with PiSSA and quantized weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from edgetune.tune.stepwise.batches import IGNORED, pad_rows
from edgetune.tune.stepwise.language_trainer import (
    LanguagePlan,
    LanguageResult,
    LanguageTrainer,
    Run,
    shared_arguments,
)
from edgetune.tune.stepwise.objectives.pairs import (
    PairNats,
    accuracy,
    chosen_rows,
    measure_pairs,
    preference_loss,
    rejected_rows,
    votes_of,
)
from edgetune.tune.stepwise.perplexity import measure_perplexity
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.traces import EncodedRow, longest_side
from edgetune.tune.training.batches import EpochSampler
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model

Batch = dict[str, torch.Tensor]
References = dict[str, list[float]]


@dataclass(frozen=True)
class Offline:
    """What an objective of judged rows needs of TRL.

    Attributes:
        rows: the rows that its trainer takes, of the training rows and its batch size.
        reference: log-probabilities of the base by column, of those rows, with the progress that is told.
        trainer: (recipe, plan, folder) to the trainer's class and its configuration.
        collate: rows to a batch.
    """

    rows: Callable[[Sequence[EncodedRow], int, int], list[EncodedRow]]
    reference: Callable[[Model, Sequence[EncodedRow], Progress], References]
    trainer: Callable[[GenerationTuneRecipe, LanguagePlan, Path], tuple[type[_PreferenceTrainer], Any]]
    collate: Callable[[Sequence[Mapping[str, Any]]], Batch]


def train_on_preferences(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: Sequence[EncodedRow],
    validation_rows: Sequence[EncodedRow],
    *,
    references: References,
    base: PairNats,
    recipe: GenerationTuneRecipe,
    plan: LanguagePlan,
    folder: Path,
    progress: Progress,
) -> LanguageResult:
    """Train `model` in place by the recipe's objective; as `train_language_model` otherwise.

    Args:
        train_rows: as the objective's `rows` gives them.
        validation_rows: pairs.
        references: the base's log-probabilities of the training rows, by column; none where none are needed.
        base: what the base thinks of the validation pairs.
    """
    kind = OFFLINE[recipe.objective]
    trainer, arguments = kind.trainer(recipe, plan, folder)
    rows = [
        {**row, **{name: values[place] for name, values in references.items()}} for place, row in enumerate(train_rows)
    ]
    return Run(recipe, plan, train_rows, folder, progress).train(
        model,
        lambda callbacks: trainer(
            plan=plan,
            base=base,
            beta=recipe.preference.beta,
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(list(validation_rows)),
            data_collator=kind.collate,
            processing_class=tokenizer,
            callbacks=callbacks,
        ),
        lambda metrics: (
            f"validation preference accuracy {metrics['eval_value']:.4f}, preference loss {metrics['eval_loss']:.4f}"
        ),
    )


class _PreferenceTrainer(LanguageTrainer):
    """What TRL's trainers of judged rows have in common here: rows as they are, and pairs to evaluate by."""

    def __init__(self, *, base: PairNats, beta: float, **arguments: Any) -> None:
        self._base_nats, self._margin_beta = base, beta
        super().__init__(**arguments)

    def evaluated(self) -> tuple[float, float]:
        """Preference loss and preference accuracy on the validation pairs."""
        margins = measure_pairs(self.model, self.eval_dataset).margins(self._base_nats)
        return preference_loss(margins, self._margin_beta), accuracy(margins)

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset

    def _get_train_sampler(self, train_dataset: object = None) -> Any:
        lengths = [longest_side(row) for row in self.train_dataset]
        return EpochSampler(self.args.train_batch_size * self.args.gradient_accumulation_steps, lengths, self.args.seed)


class _DPOTrainer(_PreferenceTrainer, DPOTrainer):
    """DPO (Rafailov et al. 2023, arXiv 2305.18290)."""


class _KTOTrainer(_PreferenceTrainer, KTOTrainer):
    """KTO (Ethayarajh et al. 2024, arXiv 2402.01306), whose batches are fixed: its KL term pairs their rows."""

    def _get_train_sampler(self, train_dataset: object = None) -> Any:
        return SequentialSampler(self.train_dataset)


def _dpo(recipe: GenerationTuneRecipe, plan: LanguagePlan, folder: Path) -> tuple[type[_PreferenceTrainer], DPOConfig]:
    return _DPOTrainer, DPOConfig(
        **shared_arguments(recipe, plan, folder), **_offline_arguments(recipe), precompute_ref_log_probs=True
    )


def _kto(recipe: GenerationTuneRecipe, plan: LanguagePlan, folder: Path) -> tuple[type[_PreferenceTrainer], KTOConfig]:
    return _KTOTrainer, KTOConfig(
        **shared_arguments(recipe, plan, folder),
        **_offline_arguments(recipe),
        precompute_ref_log_probs=True,
        train_sampling_strategy="sequential",
    )


def _orpo(recipe: GenerationTuneRecipe, plan: LanguagePlan, folder: Path) -> tuple[type[_PreferenceTrainer], Any]:
    from edgetune.tune.stepwise.objectives.orpo import OrpoTrainer, orpo_config

    class _OrpoTrainer(_PreferenceTrainer, OrpoTrainer):
        """ORPO with the evaluation of the others."""

    return _OrpoTrainer, orpo_config(**shared_arguments(recipe, plan, folder), **_offline_arguments(recipe))


def _offline_arguments(recipe: GenerationTuneRecipe) -> dict[str, Any]:
    return {
        "beta": recipe.preference.beta,
        "max_length": None,
        # Log-probabilities of the base are without dropout, and so are those that they are compared with.
        "disable_dropout": True,
    }


def _pair_rows(rows: Sequence[EncodedRow], batch_size: int, seed: int) -> list[EncodedRow]:
    return list(rows)


def _vote_rows(rows: Sequence[EncodedRow], batch_size: int, seed: int) -> list[EncodedRow]:
    """Votes in whole batches of an order drawn by seed, each row with the answer of its neighbour beside it.

    KTO's KL term is of answers to other prompts: within a batch each prompt gets the answer of the row before
    (arXiv 2402.01306, section 4.1).
    """
    votes = votes_of(rows)
    drawn = [votes[place] for place in np.random.default_rng(seed).permutation(len(votes))]
    if len(drawn) % batch_size == 1:  # a row alone would be its own neighbour
        drawn = drawn[:-1]
    mixed = []
    for first in range(0, len(drawn), batch_size):
        batch = drawn[first : first + batch_size]
        for row, other in zip(batch, [batch[-1], *batch[:-1]], strict=True):
            prompt, answer = row["input_ids"][: _start(row)], other["input_ids"][_start(other) :]
            labels = [IGNORED] * len(prompt) + other["labels"][_start(other) :]
            mixed.append({**row, "mixed_ids": prompt + answer, "mixed_labels": labels})
    return mixed


def _start(row: EncodedRow) -> int:
    """The place of the first token of the answer."""
    return next(place for place, label in enumerate(row["labels"]) if label != IGNORED)


def _pair_reference(model: Model, rows: Sequence[EncodedRow], progress: Progress) -> References:
    nats = measure_pairs(model, rows, progress=progress)
    return {"ref_chosen_logps": (-nats.chosen).tolist(), "ref_rejected_logps": (-nats.rejected).tolist()}


def _vote_reference(model: Model, rows: Sequence[EncodedRow], progress: Progress) -> References:
    own = measure_perplexity(model, chosen_rows(rows), progress=progress)
    mixed = measure_perplexity(model, _mixed_rows(rows), progress=progress)
    return {"ref_logps": (-own.losses).tolist(), "ref_KL_logps": (-mixed.losses).tolist()}


def _no_reference(model: Model, rows: Sequence[EncodedRow], progress: Progress) -> References:
    return {}


def _mixed_rows(rows: Sequence[Mapping[str, Any]]) -> list[EncodedRow]:
    return [{"input_ids": row["mixed_ids"], "labels": row["mixed_labels"]} for row in rows]


def _masked(rows: Sequence[EncodedRow], prefix: str = "") -> Batch:
    """A batch with a mask of the answers' tokens: (rows, tokens) int64 each."""
    batch = pad_rows(rows)
    return {
        f"{prefix}input_ids": batch["input_ids"],
        f"{prefix}attention_mask": batch["attention_mask"],
        f"{prefix}completion_mask": (batch["labels"] != IGNORED).long(),
    }


def collate_pairs(rows: Sequence[Mapping[str, Any]]) -> Batch:
    """Chosen rows above rejected ones, as TRL's DPO takes them, with the base's log-probabilities (pairs,) float32."""
    batch = _masked([*chosen_rows(rows), *rejected_rows(rows)])
    names = ("ref_chosen_logps", "ref_rejected_logps")
    return batch | {name: torch.tensor([row[name] for row in rows]) for name in names if name in rows[0]}


def collate_votes(rows: Sequence[Mapping[str, Any]]) -> Batch:
    """Rows, the same prompts with their neighbours' answers, votes and the base's log-probabilities, as TRL's KTO."""
    references = {name: torch.tensor([row[name] for row in rows]) for name in ("ref_logps", "ref_KL_logps")}
    votes = torch.tensor([bool(row["liked"][0]) for row in rows])
    return {**_masked(chosen_rows(rows)), **_masked(_mixed_rows(rows), "KL_"), **references, "label": votes}


OFFLINE: dict[str, Offline] = {
    "dpo": Offline(_pair_rows, _pair_reference, _dpo, collate_pairs),
    "kto": Offline(_vote_rows, _vote_reference, _kto, collate_votes),
    "orpo": Offline(_pair_rows, _no_reference, _orpo, collate_pairs),
}
