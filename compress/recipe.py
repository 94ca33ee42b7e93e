"""What a user can say about compression: the `compress:` section of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edgetune.compress.schemes import SCHEMES


class CompressRecipe(BaseModel):
    """Which schemes the search may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schemes: list[str] | Literal["auto"] = Field(
        "auto",
        description="Schemes to try: " + ", ".join(SCHEMES) + "; auto tries those that suit model, data and machine.",
    )

    variants: list[str] = Field(
        [],
        description="Graphs that the bundle holds beside the chosen one, by scheme, such as fused: each passes the "
        "same gates on the validation part, and the loader takes the one that its machine runs best.",
    )

    cascades: bool = Field(
        True, description="Whether a small model, such as static, may answer before the chosen graph where it is sure."
    )

    structural: bool = Field(True, description="Whether auto may take parts of the model away: layers and columns.")

    @field_validator("schemes")
    @classmethod
    def _known_schemes(cls, schemes: list[str] | str) -> list[str] | str:
        unknown = [name for name in schemes if name not in SCHEMES] if isinstance(schemes, list) else []
        if unknown or schemes == []:
            raise ValueError(f"no such scheme: {', '.join(unknown) or '(none named)'}; expected {', '.join(SCHEMES)}")
        return schemes

    @field_validator("variants")
    @classmethod
    def _known_variants(cls, variants: list[str]) -> list[str]:
        known = [scheme.name for scheme in SCHEMES.values() if scheme.level == "graph"]
        if unknown := [name for name in variants if name not in known]:
            raise ValueError(f"no such graph: {', '.join(unknown)}; expected {', '.join(known)}")
        return list(dict.fromkeys(variants))
