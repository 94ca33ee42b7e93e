"""The recipe of a language model: what the user says, one section per stage, each defined in its stage."""

from __future__ import annotations

from edgetune.benchmarks.stepwise.recipe import (
    GenerationBenchmarkRecipe,
    GenerationBudgetRecipe,
    GenerationGateRecipe,
)
from edgetune.compress.gptq.recipe import LanguageCompressRecipe
from edgetune.export.stepwise.recipe import GenerationExportRecipe
from edgetune.recipe import Recipe
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe


class StepwiseRecipe(Recipe):
    """One build of a language model, whole."""

    family = "stepwise"
    data: ConversationRecipe
    tune: GenerationTuneRecipe = GenerationTuneRecipe()
    export: GenerationExportRecipe = GenerationExportRecipe()
    compress: LanguageCompressRecipe = LanguageCompressRecipe()
    gate: GenerationGateRecipe = GenerationGateRecipe()
    budget: GenerationBudgetRecipe = GenerationBudgetRecipe()
    benchmark: GenerationBenchmarkRecipe = GenerationBenchmarkRecipe()
