"""What a user can say about the graph of a language model: the `export:` section of its recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class GenerationExportRecipe(BaseModel):
    """Where the bundle will run, and for how many prompts at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Literal["cpu"] = Field("cpu", description="Execution provider of the graph.")
    batch: Literal["any", "one"] = Field(
        "any",
        description="one: the graph for a single prompt at a time, without the mask of padding.",
    )
