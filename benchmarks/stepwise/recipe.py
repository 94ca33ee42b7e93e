"""What a user can say about the proof of a language model: the `gate:`, `budget:` and `benchmark:` sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edgetune.benchmarks.recipe import CommonBudgetRecipe, GateRecipe
from edgetune.serve.json_types import JsonObject
from edgetune.tune.metrics import Metric


class GenerationGateRecipe(GateRecipe):
    """How much worse than the tuned model a candidate may predict the held-out answers."""

    metric: Literal["", "perplexity"] = Field("", description="What is compared; empty is perplexity.")
    max_preference_drop: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Largest drop of preference accuracy allowed beside it, where judged answers were learnt.",
    )
    rows: int = Field(500, ge=2, description="Rows of the validation part and of the test part that judge, at most.")

    @field_validator("max_drop")
    @classmethod
    def _is_of_scores(cls, max_drop: float) -> float:
        if max_drop != GateRecipe.model_fields["max_drop"].default:
            raise ValueError("is a limit of scores, and perplexity is an error; set gate.max_rise")
        return max_drop

    def as_used(self, metric: Metric, second: Metric | None = None) -> JsonObject:
        """The terms that hold, as a report has them; those of preferences where they are judged."""
        terms = super().as_used(metric, second)
        return terms if second else {name: term for name, term in terms.items() if name != "max_preference_drop"}

    @property
    def of_preferences(self) -> GateRecipe:
        """The terms for preference accuracy: the same but for its limit; agreement is looked at with perplexity."""
        common = {name: getattr(self, name) for name in ("confidence", "when_inconclusive")}
        return GateRecipe(**common, rows=max(10, self.rows), max_drop=self.max_preference_drop)


class GenerationBudgetRecipe(CommonBudgetRecipe):
    """What the bundle may cost; empty means any."""

    tokens_per_second: float | None = Field(None, gt=0, description="Least tokens a second while decoding, batch 1.")
    first_token_ms: float | None = Field(
        None, gt=0, description="Median time to the first token of the shortest prompt."
    )


class GenerationBenchmarkRecipe(BaseModel):
    """How the base and the bundle are timed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_tokens: list[Annotated[int, Field(ge=1)]] = Field(
        [16, 128, 512], description="Prompt lengths to the first token; those beyond the context are left out."
    )
    batches: list[Annotated[int, Field(ge=1)]] = Field([1, 4, 8], description="Prompts that are decoded together.")
    new_tokens: int = Field(64, ge=8, description="Tokens decoded in each run.")
    rounds: int = Field(5, ge=2, description="Turns of each side.")
    workload: Literal["lengths", "none"] = Field(
        "lengths", description="What the bundle carries for `edgetune measure`: token counts of prompts, or nothing."
    )
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Threads of each; auto is the usable cores."
    )
