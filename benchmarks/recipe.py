"""What a user can say about proof: the `gate:`, `budget:` and `benchmark:` sections of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class GateRecipe(BaseModel):
    """How much quality a candidate may lose against the tuned model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: Literal["accuracy", "macro_f1"] = Field("accuracy", description="What is compared.")
    max_drop: float = Field(0.01, ge=0, lt=1, description="Largest drop allowed; 0.01 is one point.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the paired interval of the drop.")
    when_inconclusive: Literal["auto", "accept", "reject"] = Field(
        "auto",
        description="What becomes of a candidate whose drop is within the limit, but not proven so; auto rejects where "
        "parts of the model were taken away, and accepts the others.",
    )
    rows: int = Field(4000, ge=10, description="Rows of the validation part and of the test part that judge, at most.")


class BudgetRecipe(BaseModel):
    """What the bundle may cost; empty means any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_mb: float | None = Field(None, gt=0, description="All files of the bundle in MB (10^6 bytes).")
    p90_ms: float | None = Field(None, gt=0, description="90th percentile of latency, text in to label out.")
    rss_mb: float | None = Field(None, gt=0, description="Peak resident memory of the answering process.")
    cold_start_ms: float | None = Field(None, gt=0, description="Process start to first answer.")


class BenchmarkRecipe(BaseModel):
    """How the base and the bundle are timed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(400, ge=40, description="Single calls timed of each; 299 are needed for a p99.")
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Threads of each; auto is the usable cores."
    )
    grid: bool = Field(True, description="Also time batches of 1, 8, 32 by 16, 64, 128 tokens.")
    cold_starts: int = Field(3, ge=1, description="Fresh processes started of each to time the first answer.")
