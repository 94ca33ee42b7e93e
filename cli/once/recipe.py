"""The recipe of the family `once`: what the user says, one section per stage, each defined in its stage."""

from __future__ import annotations

from pydantic import ValidationInfo, field_validator

from edgetune.benchmarks.recipe import BenchmarkRecipe, BudgetRecipe, GateRecipe
from edgetune.compress.recipe import CompressRecipe
from edgetune.export.recipe import ExportRecipe
from edgetune.recipe import Recipe
from edgetune.serve.errors import RecipeError
from edgetune.tune.data.dataset import DataRecipe
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS


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

    @field_validator("tune")
    @classmethod
    def _learnt_by_the_task(cls, tune: TuneRecipe, values: ValidationInfo) -> TuneRecipe:
        """Classes are weighed only where there are any."""
        task = TASKS.get(values.data.get("task", ""))
        if task is not None and not task.has_labels and tune.class_weights != "none":
            raise ValueError(f"class_weights is {tune.class_weights}, but {task.name} has no classes; expected none")
        return tune

    @field_validator("gate")
    @classmethod
    def _judged_by_the_task(cls, gate: GateRecipe, values: ValidationInfo) -> GateRecipe:
        """The task has the metric, and the limit that is set is one of it."""
        task = TASKS.get(values.data.get("task", ""))
        try:
            if task is not None:
                gate.limit(task.metric(gate.metric))
        except RecipeError as error:
            raise ValueError(f"{error.found.rstrip('.')}; expected {error.expected}") from error
        if task is not None and not task.has_labels and gate.min_agreement > 0:
            raise ValueError("min_agreement counts answers that are equal, which numbers never are; expected 0")
        return gate
