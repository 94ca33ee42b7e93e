"""The recipe of the family `once`: what the user says, one section per stage, each defined in its stage."""

from __future__ import annotations

from edgetune.benchmarks.recipe import BenchmarkRecipe, BudgetRecipe, GateRecipe
from edgetune.compress.recipe import CompressRecipe
from edgetune.export.recipe import ExportRecipe
from edgetune.recipe import Recipe
from edgetune.tune.data.dataset import DataRecipe
from edgetune.tune.recipe import TuneRecipe
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

    @property
    def allows_pickle(self) -> bool:
        """Whether weights that are a pickle may be opened."""
        return self.tune.allow_pickle

    @property
    def reporters(self) -> tuple[Reporter, ...]:
        """Trackers that the training's curves are sent to."""
        return self.tune.report_to
