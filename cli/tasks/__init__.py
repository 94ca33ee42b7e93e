"""The tasks as the roof sees them: of each its recipe, its look at data, its plan and its stages, one row here.

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
        look: "module:class" of what `edgetune init` sees in data, a `Look` made by `of(data, base)`.
        plan: "module:function" that makes the `Plan` of a recipe.
        stages: "module:class" of how it becomes a bundle: made of (recipe, base, work, lines), with `run(until)`.
    """

    name: str
    summary: str
    recipe: str
    look: str
    plan: str
    stages: str

    def open_recipe(self) -> Any:
        """The class of its recipe."""
        return _named(self.recipe)

    def open_look(self) -> Any:
        """The class of its look at data."""
        return _named(self.look)

    def open_plan(self) -> Any:
        """The function that makes its plan."""
        return _named(self.plan)

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
            "edgetune.tasks.classification_look:ClassificationLook",
            "edgetune.tasks.classification_plan:plan_classification",
            "edgetune.tasks.text_classification:Stages",
        ),
        Task(
            "text-generation",
            "Text that continues or answers a prompt.",
            "edgetune.tasks.generation_recipe:GenerationRecipe",
            "edgetune.tasks.generation_look:GenerationLook",
            "edgetune.tasks.generation_plan:plan_generation",
            "edgetune.tasks.text_generation:Stages",
        ),
    )
}
