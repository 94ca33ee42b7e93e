"""A look at data: what `edgetune init` says and writes. What is read and learnt is the family's affair (look.py of
cli/once/ and cli/stepwise/).

Data is read by the same code as in a build, so that what is said here is what a build will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetune.recipe_text import comment, comments, lines_of, scalar, stem
from edgetune.tasks import TASKS
from edgetune.tune.data.source_recipe import SourceRecipe

TEMPLATE = """\
# A recipe for edgetune, written from a look at {source}. To run it: edgetune build {place}
#
# What was found:
{findings}

# {base_remark}
base: {base}
task: {task}

data:
{data}  # {split_remark}
  split: {split}
  clean: {clean}
{hints}
{sections}
benchmark: {{}}
seed: 0
out: {out}
"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen in data, and what the recipe that repeats it says.

    Attributes:
        findings: sentences on what was read, guessed, dropped and counted.
        facts: what a script wants to know, as JSON types.
        base_remark: what may stand for `base`.
        values: of the data section: what the user gave, and without what a build would have to guess again.
        remarks: by key, what is said behind its value.
        split_remark: what is said above `split`.
        hints: lines of comment that end the data section.
        sections: of tune, compress and gate, as YAML with comments.
    """

    task: str
    base: str
    recipe: SourceRecipe
    findings: tuple[str, ...]
    facts: Mapping[str, Any]
    base_remark: str
    values: Mapping[str, Any]
    remarks: Mapping[str, str] = field(default_factory=dict)
    split_remark: str
    hints: str
    sections: str

    def recipe_text(self, place: Path) -> str:
        """A commented recipe as YAML that repeats exactly what was found; `place` is where it will stand."""
        return TEMPLATE.format(
            source=comment(self.recipe.source),
            place=place,
            findings=comments(self.findings),
            base_remark=self.base_remark,
            base=scalar(self.base),
            task=self.task,
            data=lines_of(self.values, self.remarks),
            split_remark=self.split_remark,
            split=scalar(list(self.recipe.split)),
            clean=scalar(self.recipe.clean.model_dump()),
            hints=self.hints,
            sections=self.sections,
            out=scalar(f"bundles/{stem(self.recipe.source)}"),
        )


def given_values(recipe: SourceRecipe) -> dict[str, Any]:
    """What the user says of the data, but for split and cleaning, which every recipe writes out."""
    return recipe.model_dump(mode="json", exclude_unset=True, exclude={"split", "clean"})


def look_at(task: str, data: Mapping[str, Any], base: str | None) -> Look:
    """Read the data as a build of `task` does.

    Args:
        task: one of `TASKS`.
        data: the values of the recipe's data section.
        base: the base model by name, or None for the one that the family begins with.

    Raises:
        RecipeError: the data section has faults; all at once.
        DataError: the data cannot be read or learnt from.
    """
    look: Look = TASKS[task].load("look")(task, data, base)
    return look
