"""The rules that a recipe sets for a training's gradients and ranks, given to its trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.tune.training.gradients import GradientRule, GradualThawing, RuledTrainer, StartAnchor
from edgetune.tune.training.ranks import RankAllocation

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model
    from edgetune.tune.recipe import TuneRecipe
    from edgetune.tune.stepwise.recipe import GenerationTuneRecipe


def govern(
    trainer: RuledTrainer,
    model: Model,
    recipe: TuneRecipe | GenerationTuneRecipe,
    *,
    head: Sequence[str],
    folder: Path,
    more: Sequence[GradientRule] = (),
) -> None:
    """Let a trainer follow the recipe's rules.

    Args:
        model: as it is before training, and before a checkpoint is opened: what it is drawn to.
        head: names of the modules that have no start to stay near.
        folder: of the checkpoints.
        more: rules that rest on more than the recipe.
    """
    rules: list[GradientRule] = [*more]
    if recipe.l2_sp:
        rules.append(StartAnchor(model, recipe.l2_sp, outside=head))
    if recipe.method == "freeze" and recipe.freeze.gradual:
        rules.append(GradualThawing(model))
    if hasattr(getattr(model, "base_model", None), "rankallocator"):
        ranks = RankAllocation(model, folder)
        rules.append(ranks.rule)
        trainer.add_callback(ranks)
    trainer.rules = rules
