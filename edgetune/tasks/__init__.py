"""The tasks as the roof sees them: of each its recipe and its stages, one row here.

Everything is named by string, so that a recipe of one task loads nothing of another.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """A thing that a model can learn to do.

    Attributes:
        name: as recipes name it.
        summary: one sentence for people.
        recipe: "module:class" of what the user says, a `CommonRecipe`.
        stages: "module:class" of how it becomes a bundle: made of (recipe, base, work, lines), with `run(until)`.
    """

    name: str
    summary: str
    recipe: str
    stages: str

    def open_recipe(self) -> Any:
        """The class of its recipe."""
        return _named(self.recipe)

    def open_stages(self) -> Any:
        """The class of its stages."""
        return _named(self.stages)


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "text-classification",
            "A label for a text.",
            "edgetune.recipe:Recipe",
            "edgetune.tasks.text_classification:Stages",
        ),
        Task(
            "text-generation",
            "Text that continues or answers a prompt.",
            "edgetune.tasks.generation_recipe:GenerationRecipe",
            "edgetune.tasks.text_generation:Stages",
        ),
    )
}
