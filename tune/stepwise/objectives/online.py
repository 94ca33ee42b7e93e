"""GRPO and RLOO through TRL's trainers: the model draws several answers to each prompt, and learns of their rewards.

Prompts are token ids as a build encodes them; what scores the answers reads prompts in words. The best epoch is the one
with the highest mean reward of greedy answers to validation prompts, which is what a bundle will give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from edgetune.serve.errors import DataError, RecipeError
from edgetune.tune.stepwise.answers import answer_texts, find_questions
from edgetune.tune.stepwise.language_trainer import (
    LanguagePlan,
    LanguageResult,
    LanguageTrainer,
    Run,
    shared_arguments,
)
from edgetune.tune.stepwise.methods import METHODS
from edgetune.tune.stepwise.objectives.quality import Asked
from edgetune.tune.stepwise.objectives.rewards import Rewards
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.traces import EncodedRow
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model

BETA = 0.02  # of the divergence from the base, where it can be had without a second copy of the weights


@dataclass(frozen=True)
class Prompts:
    """What is answered while the model learns: token ids and words of each prompt, and the rows they come from."""

    rows: tuple[EncodedRow, ...]
    ids: tuple[tuple[int, ...], ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[EncodedRow], words: Sequence[str]) -> Prompts:
        """The prompts of encoded rows, each once.

        Raises:
            DataError: no row has a prompt.
        """
        found: dict[tuple[int, ...], tuple[EncodedRow, str]] = {}
        for row, asked in zip(rows, words, strict=True):
            for question in find_questions([row]):
                found.setdefault(question.prompt, (row, asked))
        if not found:
            raise DataError(
                f"None of the {len(rows)} training rows has a prompt to answer.", expected="rows with prompts"
            )
        return cls(tuple(row for row, _ in found.values()), tuple(found), tuple(asked for _, asked in found.values()))


def train_on_rewards(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    validation: Asked,
    *,
    rewards: Rewards,
    recipe: GenerationTuneRecipe,
    plan: LanguagePlan,
    folder: Path,
    progress: Progress,
) -> LanguageResult:
    """Train `model` in place by GRPO or RLOO; as `train_language_model` otherwise."""
    trainer, config = (_GRPOTrainer, GRPOConfig) if recipe.objective == "grpo" else (_RLOOTrainer, RLOOConfig)
    rows = [{"prompt": list(ids), "asked": asked} for ids, asked in zip(prompts.ids, prompts.words, strict=True)]
    if len(rows) * recipe.online.generations < recipe.batch_size:
        raise DataError(
            f"{len(rows)} prompts, answered {recipe.online.generations} times each, do not fill a batch of "
            f"{recipe.batch_size}.",
            expected=f"at least {recipe.batch_size // recipe.online.generations} different prompts to learn from",
            action="lower tune.batch_size, or add rows",
        )

    def scored(prompts: object, completions: Sequence[str], asked: Sequence[str], **_: object) -> list[float]:
        return rewards.score(asked, completions).tolist()

    return Run(recipe, plan, prompts.rows, folder, progress).train(
        model,
        lambda callbacks: trainer(
            plan=plan,
            validation=validation,
            rewards=rewards,
            model=model,
            reward_funcs=[scored],
            args=config(**shared_arguments(recipe, plan, folder), **_online_arguments(recipe)),
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(rows[:1]),  # the Trainer wants one; what is asked is `validation`
            processing_class=tokenizer,
            callbacks=callbacks,
        ),
        lambda metrics: f"mean reward of {len(validation.questions):,} answers {metrics['eval_value']:.4g}",
    )


class _RewardTrainer(LanguageTrainer):
    """What TRL's trainers by rewards have in common here: prompts that are encoded already, and greedy evaluation."""

    def __init__(self, *, validation: Asked, rewards: Rewards, **arguments: Any) -> None:
        self._validation, self._rewards = validation, rewards
        super().__init__(**arguments)

    def evaluated(self) -> tuple[float, float]:
        """Minus the mean reward, and the mean reward, of greedy answers to the validation prompts."""
        ids = self._validation.answered(self.accelerator.unwrap_model(self.model), self.processing_class)
        reward = float(np.mean(self._rewards.score(self._validation.words, answer_texts(self.processing_class, ids))))
        return -reward, reward

    def _tokenize_prompts(self, prompts: Sequence[Sequence[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(ids) for ids in prompts], None, {}


class _GRPOTrainer(_RewardTrainer, GRPOTrainer):
    """GRPO (Shao et al. 2024, arXiv 2402.03300)."""


class _RLOOTrainer(_RewardTrainer, RLOOTrainer):
    """RLOO (Ahmadian et al. 2024, arXiv 2402.14740)."""


def _online_arguments(recipe: GenerationTuneRecipe) -> dict[str, Any]:
    online = recipe.online
    return {
        "num_generations": online.generations,
        "per_device_eval_batch_size": recipe.batch_size,
        "max_completion_length": online.answer_tokens,
        "temperature": online.temperature,
        "beta": divergence_weight(recipe),
    }


def divergence_weight(recipe: GenerationTuneRecipe) -> float:
    """The weight of the divergence from the base.

    Raises:
        RecipeError: one is asked for, and the method's adapters cannot be switched off to have the base's opinion: it
            would take a second copy of all weights.
    """
    beta, method = recipe.online.beta, METHODS[recipe.method]
    switches = method.has_adapters and recipe.method != "pissa"
    if beta == "auto":
        return BETA if switches else 0.0
    if beta and not switches:
        raise RecipeError(
            f"tune.online.beta is {beta:g}, and the method {recipe.method} has no adapters that could be switched off "
            "for the base's opinion.",
            expected="tune.online.beta 0 or auto, or the method lora",
        )
    return beta
