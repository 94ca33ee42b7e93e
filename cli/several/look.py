"""A look at the data of several tasks: each as where it is built alone, put together into one recipe."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.look import Look, look_at
from edgetune.recipe import recipe_values
from edgetune.recipe_text import comments, lines_of, scalar
from edgetune.serve.errors import RecipeError
from edgetune.several.data import of_task
from edgetune.several.recipe import KINDS, NAME
from edgetune.task_choice import choose_task

_NAMED = re.compile(rf"({NAME.pattern})=(.+)")
_WAY = "edgetune init NAME=DATA NAME=DATA, such as intent=intents.csv mood=mood.tsv"

TEMPLATE = """\
# A recipe for edgetune, written from a look at the data of {number} tasks. To run it: edgetune build {place}
#
# What was found:
{findings}

base: {base}

tasks:
{tasks}

tune: {{}}        # sampling: 0.5 is the power of the tasks' sizes by which batches are drawn
compress: {{}}
gate: {{}}        # max_drop of scores, max_rise of errors, each judged task by task
benchmark: {{}}
seed: 0
out: bundles/several
"""


@dataclass(frozen=True)
class SeveralLook:
    """What was seen in the data of each task."""

    looks: Mapping[str, Look]

    @property
    def findings(self) -> tuple[str, ...]:
        """Sentences on each, behind the task's name."""
        return tuple(f"{name}: {finding}" for name, look in self.looks.items() for finding in look.findings)

    @property
    def facts(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""
        return {"tasks": {name: {"kind": _kind(look), **look.facts} for name, look in self.looks.items()}}

    def recipe_text(self, place: Path) -> str:
        """A commented recipe as YAML that repeats exactly what was found; `place` is where it will stand."""
        return TEMPLATE.format(
            number=len(self.looks),
            place=place,
            findings=comments(self.findings),
            base=scalar(next(iter(self.looks.values())).base),
            tasks="\n".join(_section(name, look) for name, look in self.looks.items()),
        )


def _kind(look: Look) -> str:
    return next(kind for kind, task in KINDS.items() if task == look.task)


def _section(name: str, look: Look) -> str:
    """One task of the recipe."""
    split = scalar(list(look.recipe.split))
    lines = f"{lines_of(look.values, look.remarks)}  split: {split}\n  clean: {scalar(look.recipe.clean.model_dump())}"
    return f"  {name}:\n    kind: {_kind(look)}\n    data:\n{textwrap.indent(lines, '    ')}"


def named_data(data: tuple[str, ...]) -> dict[str, str] | None:
    """The data of each task by its name, of arguments NAME=DATA; None of one that is no such pair.

    Raises:
        RecipeError: some of several are no pairs, or one task is there alone, or twice.
    """
    if len(data) == 1 and (Path(data[0]).exists() or not _NAMED.fullmatch(data[0])):
        return None
    pairs = [(match[1], match[2]) for one in data if (match := _NAMED.fullmatch(one))]
    names = [name for name, _ in pairs]
    if len(pairs) < len(data) or len(set(names)) < len(names) or len(names) < 2:
        raise RecipeError(
            f"{len(data)} data sets are given, of which {len(set(names))} have a name of their own.",
            expected="one data set, or two and more, each as NAME=DATA",
            action=_WAY,
        )
    return dict(pairs)


def look_at_all(data: Mapping[str, str], base: str | None) -> SeveralLook:
    """Look at the data of each task.

    Raises:
        RecipeError, DataError: naming the task.
    """
    looks = {}
    for name, path in data.items():
        with of_task(name):
            values = recipe_values(None, {"data.path": path, **({"base": base} if base else {})})
            task = choose_task(values).task
            if task not in KINDS.values():
                raise RecipeError(
                    f"{path} is data of the task {task}.",
                    expected=f"data whose answers are of one of the kinds {', '.join(KINDS)}",
                    action="build it alone",
                )
            looks[name] = look_at(task, values["data"], base)
    return SeveralLook(looks)


def look(task: str, data: Mapping[str, Any], base: str | None) -> Look:
    """See `edgetune.look.look_at`.

    Raises:
        RecipeError: one data set is none of several tasks.
    """
    raise RecipeError(f"One data set is given for the task {task}.", expected="one for each task", action=_WAY)
