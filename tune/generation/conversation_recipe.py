"""What a user can say about the texts and chats that a language model learns: its `data:` section of a recipe.

Apart from the reading, because the recipe is parsed long before any file is. Must not import torch or transformers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgetune.tune.dataset import CleanRecipe
from edgetune.tune.dialect import Said
from edgetune.tune.generation.formats import FORMATS


class ConversationRecipe(BaseModel):
    """Where the texts or chats are, how they are read, and how they become tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = Field(
        default=None,
        description="All rows: a .jsonl, .json, .parquet, .csv, .tsv or .txt file, a folder, or a hub id.",
    )
    train: str | None = Field(default=None, description="The training rows, in place of path.")
    validation: str | None = Field(default=None, description="The validation rows; without it they are split off.")
    test: str | None = Field(default=None, description="The test rows; without it they are split off.")
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
        description="The chat template: Jinja text, a .jinja file, or a named one (plain, human-ai-en, human-ai-zh); "
        "without it the model's own, and where it has none, plain.",
    )
    split: tuple[float, float, float] = Field(
        default=(0.7, 0.15, 0.15),
        description="Shares of training, validation and test for the parts that are not given; sum 1.",
    )
    clean: CleanRecipe = Field(
        default=CleanRecipe(), description="What is stripped and what is removed before training."
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
    encoding: str | None = Field(
        default=None, description="The files' encoding, such as utf-8 or gb18030; else detected."
    )
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="What separates fields in csv and tsv; else detected."
    )
    header: bool | None = Field(default=None, description="Whether the first line names the columns; else detected.")

    @field_validator("split")
    @classmethod
    def _shares(cls, split: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(split) - 1) > 1e-6 or min(split) < 0 or split[0] == 0:
            raise ValueError(
                f"the shares {list(split)} must be 0 or more, sum to 1 and leave some for training, "
                "such as [0.7, 0.15, 0.15]"
            )
        return split

    @field_validator("format")
    @classmethod
    def _known_format(cls, name: str | None) -> str | None:
        if name is not None and name not in FORMATS:
            raise ValueError(f"there is no format {name!r}; expected one of {', '.join(FORMATS)}")
        return name

    @model_validator(mode="after")
    def _one_source(self) -> ConversationRecipe:
        if self.path is None and self.train is None:
            raise ValueError("neither path nor train is given: name the texts or chats with one of them")
        if self.path is not None and self.train is not None:
            raise ValueError(
                f"both path ({self.path}) and train ({self.train}) are given: keep one, validation and test "
                "go with either"
            )
        return self

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

    @property
    def source(self) -> str:
        """What the user named, `path` or `train`."""
        return self.path or self.train or ""

    @property
    def said(self) -> Said:
        """What the user says about how files are written."""
        return Said(self.encoding, self.delimiter, self.header)
