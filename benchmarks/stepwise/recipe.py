"""What a user can say about the proof of a language model: the `gate:`, `budget:` and `benchmark:` sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class GenerationGateRecipe(BaseModel):
    """How much worse than the tuned model a candidate may predict the held-out answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_rise: float = Field(
        0.02, ge=0, description="Largest relative rise of perplexity over the tuned model; 0.02 is two percent."
    )
    min_agreement: float = Field(
        0.0, ge=0, le=1, description="Least share of tokens whose likeliest successor is the tuned model's."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the paired interval of the rise.")
    when_inconclusive: Literal["accept", "reject"] = Field(
        "accept", description="What becomes of a candidate whose rise is within the limit, but not proven so."
    )
    rows: int = Field(500, ge=2, description="Rows of the validation part and of the test part that judge, at most.")


class GenerationBudgetRecipe(BaseModel):
    """What the bundle may cost; empty means any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_mb: float | None = Field(None, gt=0, description="All files of the bundle in MB (10^6 bytes).")
    rss_mb: float | None = Field(None, gt=0, description="Peak resident memory of the answering process.")
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
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Threads of each; auto is the usable cores."
    )
