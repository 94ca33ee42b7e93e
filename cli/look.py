"""A look at data: what `edgetune init` tells and writes. Each task has a look of its own in cli/tasks/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from edgetune.tasks import TASKS


class Look(Protocol):
    """What was seen in data."""

    @property
    def findings(self) -> list[str]:
        """Sentences on what was read, guessed, dropped and counted."""

    def recipe_text(self, place: Path) -> str:
        """A commented recipe as YAML that repeats exactly what was found; `place` is where it will stand."""

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""


def look_at(task: str, data: Mapping[str, Any], base: str | None) -> Look:
    """Read the data as a build of `task` does.

    Args:
        task: one of `TASKS`.
        data: the values of the recipe's data section.
        base: the base model by name, or None for the one that the task begins with.

    Raises:
        RecipeError: the data section has faults; all at once.
        DataError: the data cannot be read or learnt from.
    """
    look: Look = TASKS[task].open_look().of(data, base)
    return look
