"""The tune stage of a language model: measure the base, train by one method, merge, prove, and measure again.

Under `accelerate launch` every process trains, and the main one alone measures, merges and writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import set_seed

from edgetune.serve.dependencies import require
from edgetune.serve.errors import DataError
from edgetune.serve.report import CurvePoint
from edgetune.serve.stepwise.report import LanguageTraining, ObjectiveQuality
from edgetune.tune.data.slices import frozen_rows
from edgetune.tune.models.base import Base
from edgetune.tune.stepwise.answers import questions_of, score_model
from edgetune.tune.stepwise.context import position_limit
from edgetune.tune.stepwise.merge import merge_language_model
from edgetune.tune.stepwise.methods import METHODS
from edgetune.tune.stepwise.metrics import score_answers
from edgetune.tune.stepwise.model import (
    AnswerScore,
    LanguageQuality,
    TunedLanguageModel,
    language_config,
    open_language_model,
    open_pretrained,
)
from edgetune.tune.stepwise.objectives import OBJECTIVES
from edgetune.tune.stepwise.objectives.lesson import REFERENCES_NAME, Lesson, asked_of
from edgetune.tune.stepwise.objectives.pairs import PairNats, are_pairs, measure_pairs
from edgetune.tune.stepwise.objectives.quality import ObjectiveMeasure, gained_by
from edgetune.tune.stepwise.objectives.rewards import Rewards
from edgetune.tune.stepwise.packing import check_packing
from edgetune.tune.stepwise.perplexity import Perplexity, measure_perplexity
from edgetune.tune.stepwise.qlora import exact_arithmetic, open_quantized
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.tokenizer import open_language_tokenizer
from edgetune.tune.stepwise.traces import EncodedRow
from edgetune.tune.training.hardware import choose_device, fast_bf16
from edgetune.tune.training.processes import is_main, main_first, process_count, wait_for_all
from edgetune.tune.training.progress import Progress
from edgetune.tune.training.rates import Rates

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model
    from edgetune.tune.stepwise.language_trainer import LanguageResult


EncodedRows = Sequence[EncodedRow]


@dataclass(frozen=True)
class LanguageRows:
    """Encoded rows: `input_ids`, `labels` (-100 where no loss is wanted) and, where a part is packed, `position_ids`.

    Base and tuned model are measured on `test`, one row a sample, so it is not packed; without it on `validation`.
    `asked` has what the rows of each part ask, in words, where a reward is to score answers.
    """

    train: EncodedRows
    validation: EncodedRows
    test: EncodedRows = ()
    asked: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def words(self) -> Sequence[str]:
        """What the rows that are measured ask; empty words where that is not known."""
        return self.asked.get(self.measured_on) or [""] * len(self.measured)

    @property
    def measured_on(self) -> str:
        """The part that base and tuned model are measured on."""
        return "test" if self.test else "validation"

    @property
    def measured(self) -> EncodedRows:
        """Its rows."""
        return self.test or self.validation

    def check(self, vocabulary: int) -> None:
        """Look for what training could not say plainly, in all parts.

        Raises:
            DataError: a part is empty or has no answers, or rows with labels of another length or unknown ids.
        """
        faults = []
        for name, part in (("training", self.train), ("validation", self.validation), ("test", self.test)):
            if name != "test" and not any(label >= 0 for row in part for label in row["labels"]):
                faults.append(f"the {name} part has no answer token to learn or to measure")
            faults += [f"{name} row {number}: {fault}" for number, fault in _faults(part, vocabulary)]
        if faults:
            more = f"\nand {len(faults) - 10} more" if len(faults) > 10 else ""
            raise DataError(
                "The encoded rows cannot be learnt from:\n" + "\n".join(faults[:10]) + more,
                expected=f"ids of 0 to {vocabulary - 1:,}, a label for each, and answers in training and validation",
                action="encode them with the base's own tokenizer, and raise max_tokens if answers were cut away",
            )


def _faults(part: EncodedRows, vocabulary: int) -> list[tuple[int, str]]:
    faults = []
    for number, row in enumerate(part):
        ids, labels = row["input_ids"], row["labels"]
        if len(ids) != len(labels) or len(ids) < 2:
            faults.append((number, f"{len(ids)} ids and {len(labels)} labels"))
        elif min(ids) < 0 or max(ids) >= vocabulary or max(labels) >= vocabulary:
            faults.append((number, f"an id outside the vocabulary: {min(ids) if min(ids) < 0 else max(ids)}"))
    return faults


def _check_room(rows: LanguageRows, recipe: GenerationTuneRecipe, limit: int | None) -> None:
    """Refuse rows that leave no room for virtual tokens before them."""
    longest = max(len(row["input_ids"]) for part in (rows.train, rows.validation, rows.test) for row in part)
    count = recipe.prompt.tokens
    if METHODS[recipe.method].has_prompt and limit is not None and longest + count > limit:
        raise DataError(
            f"A row has {longest:,} tokens, {count} virtual ones stand before it, and the model takes {limit:,}.",
            expected=f"rows of at most {limit - count:,} tokens",
            action=f"--set data.max_tokens={limit - count}",
        )


def tune_language_model(
    rows: LanguageRows,
    base: Base,
    recipe: GenerationTuneRecipe,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    device: str,
    seed: int,
    folder: Path,
    progress: Progress,
) -> TunedLanguageModel:
    """Fine-tune `base` on rows into `folder`: model/ merged, adapter/ (LoRA and its kin), the facts.

    Interrupted training leaves `folder/checkpoints`, and the same call continues from there.

    Args:
        tokenizer: the one that encoded the rows, chat template included; None opens the base's.

    Raises:
        DataError, ModelError, MergeError, OutOfMemory, Interrupted: see there.
        MissingDependency: TRL is not installed.
    """
    require("llm", "trl")
    for metric in recipe.metrics:
        score_answers(metric, ["a b"], ["a b"])  # a missing package or function, before hours of training
    config = language_config(base, trust_remote_code=recipe.trust_remote_code)
    rows.check(int(config.get_text_config().vocab_size))
    _check_room(rows, recipe, position_limit(config.get_text_config()))
    rewards = Rewards.open(recipe.reward) if recipe.reward else None
    if recipe.metrics:
        questions_of(rows.measured)  # rows without a question are told before hours of training
    set_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    where = choose_device(device)  # type: ignore[arg-type]
    job = _Job(
        rows=rows,
        base=base,
        recipe=recipe,
        tokenizer=tokenizer or open_language_tokenizer(base, trust_remote_code=recipe.trust_remote_code),
        device=where,
        bf16=fast_bf16(where) if recipe.precision == "auto" else recipe.precision == "bf16",
        seed=seed,
        folder=folder,
        rewards=rewards,
    )
    with main_first():
        before = job.measure_base(progress)
    model, result = job.train(progress)
    if is_main():
        job.finish(model, result, before, progress)
    wait_for_all()
    tuned = TunedLanguageModel.open(folder)
    wait_for_all()  # what comes next moves the folder, and another process may be opening it still
    return tuned


@dataclass(frozen=True)
class _Job:
    """One tuning: the rows, the base, and how it is tuned."""

    rows: LanguageRows
    base: Base
    recipe: GenerationTuneRecipe
    tokenizer: Any
    device: str
    bf16: bool
    seed: int
    folder: Path
    rewards: Rewards | None = None

    def measure_base(self, progress: Progress) -> Perplexity:
        """The base's perplexity, or what an interrupted build has measured."""
        measured = self.folder / "base_perplexity.npz"
        if measured.is_file():
            return Perplexity.load(measured)
        model = self._opened()
        quality = self._measured(model, progress)
        for part, rows in (("validation", self.rows.validation), ("test", self.rows.test)):
            if are_pairs(rows):
                measure_pairs(model, rows, progress=progress).save(self.folder / f"base_{part}_pairs.npz")
        quality.save(measured)
        progress.say(f"base: {self.rows.measured_on} perplexity {quality.value:.4g}")
        return quality

    def _opened(self) -> PreTrainedModel:
        return open_pretrained(self.base, trust_remote_code=self.recipe.trust_remote_code)

    def _measured(self, model: Model, progress: Progress) -> Perplexity:
        return measure_perplexity(model.to(self.device), self.rows.measured, progress=progress)

    def train(self, progress: Progress) -> tuple[Model, LanguageResult]:
        """Train by the recipe's method; the model with its best epoch in place, and its curve."""
        from edgetune.tune.stepwise.language_trainer import LanguagePlan

        recipe, method = self.recipe, METHODS[self.recipe.method]
        if method.quantized:
            model = open_quantized(self.base, recipe, device=self.device, bf16=self.bf16, progress=progress)
        else:
            model = self._opened().to(self.device)
        if "position_ids" in self.rows.train[0] and len(self.rows.validation) > 1:
            with exact_arithmetic(model):
                check_packing(model, self.rows.validation[:4])
        lesson = Lesson.of(
            self.rows,
            recipe,
            model,
            base=self.base_pairs("validation"),
            rewards=self.rewards,
            folder=self.folder,
            seed=self.seed,
            progress=progress,
        )
        set_seed(self.seed)
        model = method.prepare(model, recipe)
        plan = LanguagePlan(
            epochs=recipe.passes(len(self.rows.train)),
            rates=Rates(
                trunk=recipe.rate,
                ratio=method.rate_ratio(recipe),
                layer_decay=recipe.layer_decay,
            ),
            bf16=self.bf16,
            device=self.device,
            seed=self.seed,
        )
        return model, lesson.learn(model, self.tokenizer, plan, self.folder / "checkpoints", progress)

    def base_pairs(self, part: str) -> PairNats | None:
        """What the base thinks of the pairs of a part, None where it has none."""
        path = self.folder / f"base_{part}_pairs.npz"
        return PairNats.load(path) if path.is_file() else None

    def finish(self, model: Model, result: LanguageResult, before: Perplexity, progress: Progress) -> None:
        """Merge, prove, measure and write the facts; drop the checkpoints."""
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        merged, adapter = self.folder / "model", self.folder / "adapter"
        difference = merge_language_model(
            model, self.tokenizer, self.rows.measured, base=self.base, folder=merged, adapter=adapter
        )
        after = self._measured(open_language_model(merged), progress)
        answers = self._answers(merged, progress) if self.recipe.metrics else ()
        objective = self._objective(merged, progress)
        remark = remark_on_tuning(result.curve, before, after, objective)
        progress.say(remark)
        before.save(self.folder / "base_perplexity.npz")
        after.save(self.folder / "tuned_perplexity.npz")
        TunedLanguageModel(
            folder=self.folder,
            base_id=self.base.id,
            base_digest=self.base.digest,
            measured_on=self.rows.measured_on,
            base=LanguageQuality.of(before),
            tuned=LanguageQuality.of(after),
            merge_max_abs_diff=difference,
            training=self._summary(result, remark, trained),
            answers=answers,
            objective=objective,
        ).save(self.folder)
        (self.folder / REFERENCES_NAME).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def _objective(self, merged: Path, progress: Progress) -> ObjectiveQuality | None:
        """Base and tuned model by what the objective is for; None for supervised fine-tuning."""
        objective = OBJECTIVES[self.recipe.objective]
        if not (objective.is_judged or objective.is_online):
            return None
        base, tuned = (model.to(self.device).eval() for model in (self._opened(), open_language_model(merged)))
        after = measure_pairs(tuned, self.rows.measured, progress=progress) if are_pairs(self.rows.measured) else None
        measure = ObjectiveMeasure(
            objective.name,
            asked_of(self.rows.measured, self.rows.words, self.recipe, self.seed),
            self.base_pairs(self.rows.measured_on),
            after,
            self.rewards,
        )
        return measure.measure(base, tuned, self.tokenizer, progress)

    def _answers(self, merged: Path, progress: Progress) -> tuple[AnswerScore, ...]:
        """Scores of the answers that base and tuned model generate to the same rows."""
        metrics = self.recipe.metrics
        questions = frozen_rows(questions_of(self.rows.measured), self.recipe.metric_rows, self.seed)
        models = (self._opened(), open_language_model(merged))
        base, tuned = (
            score_model(model.to(self.device), self.tokenizer, questions, metrics, progress=progress)
            for model in models
        )
        for one, other in zip(base, tuned, strict=True):
            progress.say(f"{one.metric}: base {one.value:.4f}, tuned {other.value:.4f} on {len(questions):,} answers")
        return tuple(
            AnswerScore(metric=one.metric, rows=len(questions), base=one.value, tuned=other.value)
            for one, other in zip(base, tuned, strict=True)
        )

    def _summary(self, result: LanguageResult, remark: str, trained: int) -> LanguageTraining:
        method = METHODS[self.recipe.method]
        return LanguageTraining(
            method=method.name,
            best_epoch=result.best_epoch,
            epochs=result.epochs,
            remark=remark,
            curve=list(result.curve),
            settings={
                "batch_size": self.recipe.batch_size,
                "gradient_accumulation": self.recipe.gradient_accumulation,
                "learning_rate": self.recipe.rate,
                "longest_row_tokens": max(len(row["input_ids"]) for row in self.rows.train),
                "precision": "bf16" if self.bf16 else "fp32",
                "frozen_weights": self.recipe.qlora.weights if method.quantized else "fp32",
                "device": self.device,
                "train_rows": len(self.rows.train),
                "processes": process_count(),
                "trained_parameters": trained,
                **({} if self.recipe.objective == "sft" else {"objective": self.recipe.objective}),
            },
        )


def remark_on_tuning(
    curve: Sequence[CurvePoint], before: Perplexity, after: Perplexity, objective: ObjectiveQuality | None = None
) -> str:
    """One or two plain sentences: what was gained, and whether the curve shows over- or underfitting.

    Of an objective of preferences or rewards what it was for is told first.

    Overfitting: the validation loss ends more than 2% above its lowest. Underfitting: the last epoch lowered it by
    more than 2%.
    """
    if objective is not None:
        remark = f"{gained_by(objective)} The perplexity went from {before.value:.4g} to {after.value:.4g}."
        if OBJECTIVES[objective.objective].is_online:  # its curve is of rewards
            return remark
    elif after.loss < before.loss:
        remark = f"The perplexity fell from {before.value:.4g} to {after.value:.4g} on {len(after.tokens):,} rows."
    else:
        remark = (
            f"Tuning gained nothing: perplexity {after.value:.4g} against the base's {before.value:.4g} on "
            f"{len(after.tokens):,} rows; a lower learning_rate or more rows may do better."
        )
    lowest, last = min(curve, key=lambda point: point.validation_loss), curve[-1]
    if last.validation_loss > 1.02 * lowest.validation_loss:
        return (
            f"{remark} Overfitting after epoch {lowest.epoch:.0f}: the validation loss rose from "
            f"{lowest.validation_loss:.3f} to {last.validation_loss:.3f}; the best epoch was kept."
        )
    if len(curve) > 1 and curve[-2].validation_loss > 1.02 * last.validation_loss:
        return f"{remark} Underfitting: the last epoch still lowered the validation loss; more epochs may do better."
    return remark
