"""What a user can say about proof: the `gate:`, `budget:` and `benchmark:` sections of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgetune.serve.errors import RecipeError
from edgetune.serve.json_types import JsonObject
from edgetune.tune.metrics import Metric


class GateRecipe(BaseModel):
    """How much quality a candidate may lose against the tuned model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str = Field("", description="What is compared; empty is the task's own metric.")
    max_drop: float = Field(0.01, ge=0, lt=1, description="Largest drop of a score allowed; 0.01 is one point.")
    max_rise: float = Field(
        0.02, ge=0, description="Largest relative rise of an error (perplexity, MAE) allowed; 0.02 is two percent."
    )
    min_agreement: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Least share of answers, of a language model tokens, that are the tuned model's.",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the paired interval of the loss.")
    when_inconclusive: Literal["auto", "accept", "reject"] = Field(
        "auto",
        description="What becomes of a candidate whose loss is within the limit, but not proven so; auto rejects where "
        "parts of the model were taken away, and accepts the others.",
    )
    rows: int = Field(4000, ge=10, description="Rows of the validation part and of the test part that judge, at most.")

    @staticmethod
    def limit_name(metric: Metric) -> str:
        """The key that limits the loss of a metric."""
        return "max_drop" if metric.higher_is_better else "max_rise"

    def limit(self, metric: Metric) -> float:
        """The largest loss of a metric that is allowed: `max_drop` of a score, `max_rise` of an error.

        Raises:
            RecipeError: the other one was set, which would not hold for anything.
        """
        name = self.limit_name(metric)
        (other,) = {"max_drop", "max_rise"} - {name}
        if getattr(self, other) != type(self).model_fields[other].default:
            kind = "a score" if metric.higher_is_better else "an error"
            raise RecipeError(
                f"gate.{other} is {getattr(self, other):g}, but the gate's metric {metric.name} is {kind}.",
                expected=f"gate.{name}",
                action=f"leave gate.{other} away, or set gate.{name}",
            )
        return float(getattr(self, name))

    def as_used(self, metric: Metric, second: Metric | None = None) -> JsonObject:
        """The terms that hold for a metric, and for a second one that is judged beside it, as a report has them."""
        without = {"max_drop", "max_rise"} - {self.limit_name(metric)}
        also = {"second_metric": second.name} if second else {}
        return {**self.model_dump(mode="json", exclude=without), "metric": metric.name, **also}


class CommonBudgetRecipe(BaseModel):
    """What a bundle of any task may cost; empty means any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_mb: float | None = Field(None, gt=0, description="All files of the bundle in MB (10^6 bytes).")
    rss_mb: float | None = Field(None, gt=0, description="Peak resident memory of the answering process.")

    @property
    def limits(self) -> dict[str, float]:
        """What is asked for, by name."""
        return {name: limit for name, limit in self.model_dump().items() if limit is not None}


class BudgetRecipe(CommonBudgetRecipe):
    """What the bundle may cost; empty means any."""

    p90_ms: float | None = Field(None, gt=0, description="90th percentile of latency, input in to answer out.")
    cold_start_ms: float | None = Field(None, gt=0, description="Process start to first answer.")


class BenchmarkRecipe(BaseModel):
    """How the base and the bundle are timed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(400, ge=40, description="Single calls timed of each; 299 are needed for a p99.")
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Threads of each; auto is the usable cores."
    )
    grid: bool = Field(True, description="Also time batches of 1, 8, 32 by 16, 64, 128 tokens.")
    workload: Literal["drawn", "texts", "none"] = Field(
        "drawn",
        description="What the bundle carries for `edgetune measure`: texts drawn to the lengths of the data's, the "
        "test part's own texts, or nothing.",
    )
    cold_starts: int = Field(3, ge=1, description="Fresh processes started of each to time the first answer.")
