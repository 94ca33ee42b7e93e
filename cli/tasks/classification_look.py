"""What a look at labelled texts shows, and the commented recipe of a text classifier that repeats it.

Reads through the same code as a build, so that what is said here is what a build will do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.recipe import Recipe
from edgetune.recipe_text import comment, comments, lines_of, scalar, stem
from edgetune.tune.data.dataset import DataRecipe, Dataset, read_tables
from edgetune.tune.data.sources import Tables
from edgetune.tune.tasks import TASKS

DEFAULT = "text-classification"
FIRST_BASE = "all-MiniLM-L6-v2"

TEMPLATE = """\
# A recipe for edgetune, written from a look at {source}. To run it: edgetune build {place}
#
# What was found:
{findings}

# A folder, a packaged model or a hub id, looked for in this order.
base: {base}
task: text-classification

data:
{data}  # Training, validation and test, by class; only for the parts that are not given.
  # A test part of your own: add test: FILE (and validation: FILE).
  split: {split}
  clean: {clean}

tune:
  method: auto      # the better of probe and lora; or probe (seconds), lora, freeze, full
  pooling: auto     # as the checkpoint was trained
  epochs: auto

compress:
  schemes: auto     # what suits model, data and machine: edgetune compress --list

gate:
  max_drop: 0.01    # a bundle may lose one point of the metric, no more
  confidence: 0.95

benchmark: {{}}
seed: 0
out: {out}
"""


@dataclass(frozen=True)
class ClassificationLook:
    """Labelled texts as a build would read them."""

    base: str
    recipe: DataRecipe
    tables: Tables
    dataset: Dataset

    @classmethod
    def of(cls, data: Mapping[str, Any], base: str | None) -> ClassificationLook:
        """Read the data; see `edgetune.look.look_at`."""
        base = base or FIRST_BASE
        recipe = Recipe.of_values({"base": base, "data": data}, None).data
        tables = read_tables(recipe)
        return cls(base, recipe, tables, Dataset.of_tables(tables, recipe, TASKS[DEFAULT], seed=0))

    @property
    def findings(self) -> list[str]:
        """What reading found, and the classes."""
        rows = self._class_rows()
        (largest, most), (smallest, least) = rows[0], rows[-1]
        classes = f"{len(rows):,} classes, from {least:,} rows ({smallest!r}) to {most:,} rows ({largest!r})."
        return [*self.dataset.findings, classes]

    def recipe_text(self, place: Path) -> str:
        """A commented recipe as YAML; `place` is where it will stand."""
        return TEMPLATE.format(
            source=comment(self.recipe.source),
            place=place,
            findings=comments(self.findings),
            base=scalar(self.base),
            data=lines_of(self._data_values(), {"header": "the first line is a row"} | self._encoding_remark()),
            split=scalar(list(self.recipe.split)),
            clean=scalar(self.recipe.clean.model_dump()),
            out=scalar(f"bundles/{stem(self.recipe.source)}"),
        )

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""
        return {
            "source": self.recipe.source,
            "text_column": self.dataset.columns.texts[0],
            "label_column": self.dataset.columns.labels[0],
            "rows": {name: len(getattr(self.dataset, name)) for name in ("train", "validation", "test")},
            "classes": dict(self._class_rows()),
            "digest": self.dataset.digest,
            "findings": list(self.dataset.findings),
        }

    def _class_rows(self) -> list[tuple[str, int]]:
        """Classes and their rows in all parts, the largest first."""
        parts = (self.dataset.train, self.dataset.validation, self.dataset.test)
        counts = Counter(int(target) for part in parts for target in part.targets if isinstance(target, int))
        return [(self.dataset.labels[number], count) for number, count in counts.most_common()]

    def _data_values(self) -> dict[str, Any]:
        """What the user said, and without what a build would have to guess again."""
        said = self.recipe.model_dump(mode="json", exclude_unset=True, exclude={"split", "clean"})
        found: dict[str, Any] = {"text": self.dataset.columns.texts[0], "label": self.dataset.columns.labels[0]}
        if not self.tables.train.header:
            found["header"] = False
        encoding = self._guessed_encoding()
        return {**said, **found, **({"encoding": encoding} if encoding else {})}

    def _encoding_remark(self) -> dict[str, str]:
        return {"encoding": "a guess: look at a few texts"} if self._guessed_encoding() else {}

    def _guessed_encoding(self) -> str | None:
        """The recipe has one encoding for all parts: where they differ, each is detected again."""
        parts = (self.tables.train, self.tables.validation, self.tables.test)
        encodings = {table.encoding for table in parts if table is not None}
        return self.tables.train.encoding if len(encodings) == 1 else None
