"""The recipe of a language model: what the user says, one section per stage, each defined in its stage."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator, model_validator

from edgetune.benchmarks.stepwise.recipe import (
    GenerationBenchmarkRecipe,
    GenerationBudgetRecipe,
    GenerationGateRecipe,
)
from edgetune.benchmarks.target_recipe import Targets
from edgetune.compress.gptq.recipe import LanguageCompressRecipe
from edgetune.export.stepwise.recipe import GenerationExportRecipe
from edgetune.recipe import Recipe
from edgetune.serve.targets import HERE
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.methods import METHODS
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

    @field_validator("target")
    @classmethod
    def _proven_here(cls, targets: Targets) -> Targets:
        """Tokens follow from those before, so that one rounding changes a whole text: other proofs are to come."""
        if others := [one.isa for one in targets if one.isa != HERE]:
            raise ValueError(
                f"language models are not proven for other processors yet: {', '.join(others)}; expected here"
            )
        return targets

    @model_validator(mode="after")
    def _virtual_tokens(self) -> StepwiseRecipe:
        """What goes with virtual tokens before a sequence, and what with them alone."""
        has_prompt, names = (
            METHODS[self.tune.method].has_prompt,
            [one.name for one in METHODS.values() if one.has_prompt],
        )
        if has_prompt and self.data.packing:
            raise ValueError(
                f"data.packing is set, and method {self.tune.method} has virtual tokens before each sequence alone; "
                "expected data.packing false"
            )
        if self.compress.graph_of is not None and not has_prompt:
            raise ValueError(
                f"compress.graph_of is set, and method {self.tune.method} changes the weights that a graph is made of; "
                f"expected method {', '.join(names)}, or no compress.graph_of"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _never_unsure(cls, values: Any) -> Any:
        """Keys of tasks that give a label, refused with the reason."""
        sections = {name: values.get(name) for name in ("answer", "data")} if isinstance(values, dict) else {}
        named = [f"{name}.{key}" for name, section in sections.items() if isinstance(section, dict) for key in section]
        set_keys = [key for key in named if key.startswith("answer.") or key == "data.out_of_scope"]
        if set_keys:
            raise ValueError(
                f"{', '.join(set_keys)} is set, but the task is a language model's, which writes text instead of "
                "choosing a label that it could be unsure of; expected none"
            )
        return values
