"""What the data section of every task's recipe says: where rows are, how files are written, how they are cleaned and
split.

Apart from the reading, because the recipe is parsed long before any file is. Must not import torch or transformers.
"""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.sources import Named


class CleanRecipe(BaseModel):
    """What is done to rows before they are learnt from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deduplicate: bool = Field(
        default=True,
        description="Keep one row of each text, and none in training that also stands in validation or test.",
    )
    normalize: bool = Field(
        default=True, description="Strip white space around texts and labels, and NUL and BOM characters."
    )


class SourceRecipe(BaseModel):
    """Where rows are and how they are read; a task adds what its rows hold."""

    # A column may be named 0 or 2024: words are made of numbers.
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    rows: ClassVar[str] = "rows"  # what a task's rows are, for messages

    path: str | None = Field(
        default=None,
        description="All rows: a .csv, .tsv, .json, .jsonl or .parquet file, a folder, or a hub id.",
    )
    train: str | None = Field(default=None, description="The training rows, in place of path.")
    validation: str | None = Field(default=None, description="The validation rows; without it they are split off.")
    test: str | None = Field(default=None, description="The test rows; without it they are split off.")
    split: tuple[float, float, float] = Field(
        default=(0.7, 0.15, 0.15),
        description="Shares of training, validation and test for the parts that are not given; sum 1.",
    )
    clean: CleanRecipe = Field(
        default=CleanRecipe(), description="What is stripped and what is removed before training."
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

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path is None and self.train is None:
            raise ValueError(f"neither path nor train is given: name the {self.rows} with one of them")
        if self.path is not None and self.train is not None:
            raise ValueError(
                f"both path ({self.path}) and train ({self.train}) are given: keep one, validation and test "
                "go with either"
            )
        return self

    @property
    def source(self) -> str:
        """What the user named, `path` or `train`."""
        return self.path or self.train or ""

    @property
    def named(self) -> Named:
        """The sources of the parts."""
        return Named(self.source, self.validation, self.test)

    @property
    def file_options(self) -> FileOptions:
        """What the user says about how files are written."""
        return FileOptions(self.encoding, self.delimiter, self.header)
