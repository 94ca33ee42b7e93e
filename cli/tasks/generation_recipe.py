"""The recipe of a language model: what the user says, one section per stage, each defined in its stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgetune.benchmarks.stepwise.recipe import (
    GenerationBenchmarkRecipe,
    GenerationBudgetRecipe,
    GenerationGateRecipe,
)
from edgetune.compress.gptq.recipe import LanguageCompressRecipe
from edgetune.export.stepwise.recipe import GenerationExportRecipe
from edgetune.recipe import CommonRecipe
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe


class GenerationRecipe(CommonRecipe):
    """One build of a language model, whole."""

    task: Literal["text-generation"] = Field("text-generation", description="What the model learns to do.")
    data: ConversationRecipe
    tune: GenerationTuneRecipe = GenerationTuneRecipe()
    export: GenerationExportRecipe = GenerationExportRecipe()
    compress: LanguageCompressRecipe = LanguageCompressRecipe()
    gate: GenerationGateRecipe = GenerationGateRecipe()
    budget: GenerationBudgetRecipe = GenerationBudgetRecipe()
    benchmark: GenerationBenchmarkRecipe = GenerationBenchmarkRecipe()

    @property
    def allows_pickle(self) -> bool:
        """Whether weights that are a pickle may be opened."""
        return self.tune.allow_pickle
