"""The recipe of the family `once`: what the user says, one section per stage, each defined in its stage."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from edgetune.benchmarks.recipe import BenchmarkRecipe, BudgetRecipe, GateRecipe
from edgetune.compress.recipe import CompressRecipe
from edgetune.export.recipe import ExportRecipe
from edgetune.recipe import Recipe
from edgetune.serve.errors import RecipeError
from edgetune.tune.data.dataset import DataRecipe
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.reporters import Reporter


class OnceRecipe(Recipe):
    """One build of a model that answers by one run of its graph, whole."""

    family = "once"
    data: DataRecipe
    tune: TuneRecipe = TuneRecipe()
    export: ExportRecipe = ExportRecipe()
    compress: CompressRecipe = CompressRecipe()
    gate: GateRecipe = GateRecipe()
    budget: BudgetRecipe = BudgetRecipe()
    benchmark: BenchmarkRecipe = BenchmarkRecipe()

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        """Refuse what the task has no use for, before anything is read."""
        task = TASKS[self.task]
        self.gate.limit(task.metric(self.gate.metric))
        if self.tune.class_weights != "none" and not task.has_labels:
            raise RecipeError(
                f"tune.class_weights is {self.tune.class_weights}, but the task {self.task} has no classes to weigh.",
                expected="tune.class_weights: none",
            )
        return self

    @property
    def allows_pickle(self) -> bool:
        """Whether weights that are a pickle may be opened."""
        return self.tune.allow_pickle

    @property
    def reporters(self) -> tuple[Reporter, ...]:
        """Trackers that the training's curves are sent to."""
        return self.tune.report_to
