"""What a user can say about the compression of a language model: the `compress:` section of its recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgetune.compress.gptq.schemes import BY_NAME, LADDER, SCHEMES


class LanguageCompressRecipe(BaseModel):
    """Which schemes may be tried, smallest first; the first that passes the gate is packed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schemes: list[str] | Literal["auto"] = Field(
        "auto",
        description="Schemes to try, in this order: "
        + ", ".join(scheme.name for scheme in LADDER)
        + "; auto tries all of them. By name alone: "
        + ", ".join(scheme.name for scheme in BY_NAME)
        + ".",
    )
    block: Literal[16, 32, 64, 128] = Field(
        32, description="Weights that share a scale, where the scheme's name says no size."
    )
    calibration_rows: int = Field(128, ge=1, description="Training rows that GPTQ looks at, at most.")
    own_texts: int = Field(
        32,
        ge=0,
        description="Texts that the tuned model draws itself, which GPTQ looks at beside the rows, so that what was "
        "not tuned on is kept too; 0 draws none.",
    )

    graph_of: str | None = Field(
        None,
        description="Of prompt, p-tuning and prefix, a bundle of the same base whose graph is judged and taken instead "
        "of making one: bundles that share their graph can be joined.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> LanguageCompressRecipe:
        if self.graph_of is not None and self.schemes != "auto":
            raise ValueError("graph_of names a bundle, whose scheme is taken; expected schemes: auto beside it")
        return self

    @field_validator("schemes")
    @classmethod
    def _known_schemes(cls, schemes: list[str] | str) -> list[str] | str:
        unknown = [name for name in schemes if name not in SCHEMES] if isinstance(schemes, list) else []
        if unknown or schemes == []:
            raise ValueError(f"no such scheme: {', '.join(unknown) or '(none named)'}; expected {', '.join(SCHEMES)}")
        return schemes
