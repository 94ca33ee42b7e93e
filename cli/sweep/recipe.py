"""What a user can say about a sweep: the `sweep:` section of a recipe. A build does not read it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# What a trial can be judged by; the first always is.
OBJECTIVES = ("metric", "size", "latency")
Value = bool | int | float | str


class SweepRecipe(BaseModel):
    """What `edgetune sweep` searches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    space: dict[str, str | tuple[Value, ...]] = Field(
        default_factory=dict,
        description="Keys of the tune section and what is tried of each, such as tune.learning_rate: 1e-5..1e-3:log or "
        "tune.batch_size: [8, 16]; without it, by the method.",
    )
    objectives: tuple[Literal["metric", "size", "latency"], ...] = Field(
        ("metric",), description="What trials are judged by; the metric always is."
    )
