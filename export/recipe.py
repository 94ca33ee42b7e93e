"""What a user can say about the graph: the `export:` section of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ExportRecipe(BaseModel):
    """Where the bundle will run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Literal["cpu", "cuda"] = Field("cpu", description="Execution provider that the graph is fused for.")
