"""One training of a language model by its recipe's objective: rows, what the base thinks of them, and who trains.

Between the tune stage, which knows models and folders, and the trainings, which know steps. What the base thinks is
kept beside the checkpoints, so that a continued build need not take it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgetune.serve.errors import DataError
from edgetune.tune.stepwise.objectives import OBJECTIVES
from edgetune.tune.stepwise.objectives.pairs import PairNats, are_pairs
from edgetune.tune.stepwise.objectives.quality import Asked
from edgetune.tune.stepwise.objectives.rewards import Rewards
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.traces import EncodedRow
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model
    from edgetune.tune.stepwise.language_trainer import LanguagePlan, LanguageResult

REFERENCES_NAME = "references.json"


class Rows(Protocol):
    """The rows of a tuning."""

    @property
    def train(self) -> Sequence[EncodedRow]:
        """That are learnt."""

    @property
    def validation(self) -> Sequence[EncodedRow]:
        """That choose the best epoch."""

    @property
    def asked(self) -> Mapping[str, Sequence[str]]:
        """What the rows of each part ask, in words."""


@dataclass(frozen=True)
class Lesson:
    """What is learnt, of which rows.

    Attributes:
        train: the rows as the objective's trainer takes them.
        references: the base's log-probabilities of them, by column.
        base: what the base thinks of the validation pairs, where there are any.
        rewards: what scores drawn answers; None for an objective without.
    """

    recipe: GenerationTuneRecipe
    rows: Rows
    train: Sequence[EncodedRow]
    references: dict[str, list[float]]
    base: PairNats | None
    rewards: Rewards | None
    seed: int

    @classmethod
    def of(
        cls,
        rows: Rows,
        recipe: GenerationTuneRecipe,
        model: Model,
        *,
        base: PairNats | None,
        rewards: Rewards | None,
        folder: Path,
        seed: int,
        progress: Progress,
    ) -> Lesson:
        """Take what the objective needs of the model as it is before anything is trained.

        Raises:
            DataError: the rows are not those that the objective learns of.
        """
        if not OBJECTIVES[recipe.objective].is_judged:
            return cls(recipe, rows, rows.train, {}, base, rewards, seed)
        from edgetune.tune.stepwise.objectives.offline import OFFLINE

        if not are_pairs(rows.validation) or not (are_pairs(rows.train) or "liked" in rows.train[0]):
            raise DataError(
                f"The objective {recipe.objective} learns of judged answers, and the encoded rows have none.",
                expected="rows with rejected_ids and rejected_labels",
            )
        kind, path = OFFLINE[recipe.objective], folder / REFERENCES_NAME
        train = kind.rows(rows.train, recipe.batch_size, seed)
        if path.is_file():
            references = json.loads(path.read_text(encoding="utf-8"))
        else:
            references = kind.reference(model, train, progress)
            path.write_text(json.dumps(references), encoding="utf-8")
        return cls(recipe, rows, train, references, base, rewards, seed)

    def learn(
        self, model: Model, tokenizer: Any, plan: LanguagePlan, folder: Path, progress: Progress
    ) -> LanguageResult:
        """Train `model` in place; raises as `Run.train` does."""
        objective, recipe, validation = OBJECTIVES[self.recipe.objective], self.recipe, self.rows.validation
        if objective.is_online:
            from edgetune.tune.stepwise.objectives.online import Prompts, train_on_rewards

            assert self.rewards is not None  # the recipe has seen to it
            return train_on_rewards(
                model,
                tokenizer,
                Prompts.of(self.train, self.rows.asked["train"]),
                Asked.of(
                    validation,
                    self.rows.asked["validation"],
                    recipe.online.reward_rows,
                    recipe.online.answer_tokens,
                    self.seed,
                ),
                rewards=self.rewards,
                recipe=recipe,
                plan=plan,
                folder=folder,
                progress=progress,
            )
        if objective.is_judged:
            from edgetune.tune.stepwise.objectives.offline import train_on_preferences

            assert self.base is not None  # `of` has seen to pairs
            return train_on_preferences(
                model,
                tokenizer,
                self.train,
                validation,
                references=self.references,
                base=self.base,
                recipe=recipe,
                plan=plan,
                folder=folder,
                progress=progress,
            )
        from edgetune.tune.stepwise.training import train_language_model

        return train_language_model(
            model, tokenizer, self.train, validation, recipe=recipe, plan=plan, folder=folder, progress=progress
        )


def asked_of(rows: Sequence[EncodedRow], words: Sequence[str], recipe: GenerationTuneRecipe, seed: int) -> Asked:
    """The held-out prompts that are answered for a recipe's objective."""
    if OBJECTIVES[recipe.objective].is_online:
        return Asked.of(rows, words, recipe.online.reward_rows, recipe.online.answer_tokens, seed)
    return Asked.of(rows, words, recipe.preference.answer_rows, recipe.preference.answer_tokens, seed)
