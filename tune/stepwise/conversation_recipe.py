"""What a user can say about the texts and chats that a language model learns: its `data:` section of a recipe.

Apart from the reading, because the recipe is parsed long before any file is. Must not import torch or transformers.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from edgetune.serve.stepwise.template import TEMPLATE_VALUES
from edgetune.tune.data.source_recipe import SourceRecipe
from edgetune.tune.stepwise.formats import FORMATS


class ConversationRecipe(SourceRecipe):
    """Where the texts or chats are, how they are read, and how they become tokens."""

    rows: ClassVar[str] = "texts or chats"

    path: str | None = Field(
        default=None,
        description="All rows: a .jsonl, .json, .parquet, .csv, .tsv or .txt file, a folder, or a hub id.",
    )
    format: str | None = Field(
        default=None, description=f"How rows are written: {', '.join(FORMATS)}; without it, guessed and said."
    )
    columns: dict[str, str] = Field(
        default={},
        description="The columns of the format's fields, such as {prompt: question}; others are guessed and said.",
    )
    separator: str = Field(
        default="", description="What each completion begins with where rows lack it, such as a space."
    )
    template: str | None = Field(
        default=None,
        min_length=1,
        description="The chat template: Jinja text, a .jinja file, or a named one (plain, human-ai-en, human-ai-zh); "
        "without it the model's own, and where it has none, plain.",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default={},
        description="Variables of the chat template, such as {enable_thinking: false}: learnt with, and the bundle's "
        "default.",
    )
    max_tokens: Annotated[int, Field(ge=8)] | Literal["auto"] = Field(
        default="auto", description="Longest row in tokens; auto is the model's context, at most 1,024."
    )
    over_long: Literal["cut", "drop"] = Field(
        default="cut",
        description="What happens to a longer row: cut (a text into pieces, a chat at its end), or dropped.",
    )
    packing: bool = Field(
        default=False, description="Put several short rows into one sequence of max_tokens, none of which sees another."
    )

    @field_validator("format")
    @classmethod
    def _known_format(cls, name: str | None) -> str | None:
        if name is not None and name not in FORMATS:
            raise ValueError(f"there is no format {name!r}; expected one of {', '.join(FORMATS)}")
        return name

    @field_validator("chat_template_kwargs")
    @classmethod
    def _names_of_variables(cls, variables: dict[str, Any]) -> dict[str, Any]:
        wrong = [name for name in variables if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in TEMPLATE_VALUES]
        if wrong:
            raise ValueError(f"{', '.join(map(repr, wrong))} cannot be set: expected variables of the template's own")
        return variables

    @model_validator(mode="after")
    def _columns_of_the_format(self) -> ConversationRecipe:
        formats = [FORMATS[self.format]] if self.format else list(FORMATS.values())
        fields = {field.name for one in formats for field in one.fields}
        unknown = sorted(set(self.columns) - fields)
        if unknown:
            raise ValueError(
                f"columns names {', '.join(map(repr, unknown))}, which are no fields of the format; "
                f"expected some of {', '.join(sorted(fields))}"
            )
        return self
