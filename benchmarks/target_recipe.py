"""What a user can say about the processors that a bundle is for: `target:` of a recipe."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from edgetune.serve.targets import HERE, TARGETS

TARGET_NAMES = (HERE, *TARGETS)


class TargetRecipe(BaseModel):
    """One class of processors; its name alone says the same as `isa`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    isa: str = Field(HERE, description=f"The class: {', '.join(TARGET_NAMES)}.")
    cores: int | None = Field(None, ge=1, description="Cores there; no more threads are tried.")
    memory_mb: float | None = Field(None, gt=0, description="Memory there, which the answering process must fit in.")
    min_agreement: float = Field(
        0.995, ge=0, le=1, description="Least share of the judged answers that must be the same there, one row aside."
    )

    @field_validator("isa")
    @classmethod
    def _known(cls, isa: str) -> str:
        if isa in TARGET_NAMES:
            return isa
        near = difflib.get_close_matches(isa.lower().replace("_", "-"), TARGET_NAMES, n=1, cutoff=0.7)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"the target {isa[:80]!r} is not known{hint}; expected one of {', '.join(TARGET_NAMES)}")


def _listed(value: Any) -> Any:
    """A name or a mapping alone as a list of one, and names in a list as mappings."""
    values = [value] if isinstance(value, str | dict | TargetRecipe) else value
    if not isinstance(values, list | tuple):
        return value
    return [{"isa": one} if isinstance(one, str) else one for one in values]


Targets = Annotated[tuple[TargetRecipe, ...], BeforeValidator(_listed), Field(min_length=1)]
