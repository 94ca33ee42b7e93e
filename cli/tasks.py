"""The tasks and their families as the roof sees them, one row each; tasks together are a family of their own.

What a family does is named by string, so that a recipe of one loads nothing of the other. A task of the family `once`
is a file in tune/tasks/ and has its row there.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from edgetune.serve.tasks_report import SEVERAL_TASKS
from edgetune.tune.tasks import TASKS as ONCE_TASKS


@dataclass(frozen=True)
class Family:
    """How the tasks of one kind become a bundle; each attribute is the name of what does it, as "module:attribute".

    Attributes:
        takes: what its tasks learn from, in words.
        data: class of a recipe's data section, a `SourceRecipe`.
        recipe: class of what the user says, a `Recipe`.
        look: function (data, base, task) to the `Look` that `edgetune init` takes at data.
        plan: function (recipe) to a `Plan`.
        stages: the `Pipeline` that a build runs.
        figures: function (report) to the rows of the table of base against bundle.
        recognise: function (task, `Evidence`) to a `Guess`: how well a task fits data and base.
    """

    takes: str
    data: str
    recipe: str
    look: str
    plan: str
    stages: str
    figures: str
    recognise: str


FAMILIES = {
    "once": Family(
        "an encoder and labelled rows",
        "edgetune.tune.data.dataset:DataRecipe",
        "edgetune.once.recipe:OnceRecipe",
        "edgetune.once.look:look",
        "edgetune.once.plan:plan",
        "edgetune.once.stages:PIPELINE",
        "edgetune.once.table:figure_rows",
        "edgetune.once.recognition:recognise",
    ),
    "stepwise": Family(
        "a decoder and texts or chats",
        "edgetune.tune.stepwise.conversation_recipe:ConversationRecipe",
        "edgetune.stepwise.recipe:StepwiseRecipe",
        "edgetune.stepwise.look:look",
        "edgetune.stepwise.plan:plan",
        "edgetune.stepwise.stages:PIPELINE",
        "edgetune.stepwise.table:figure_rows",
        "edgetune.stepwise.recognition:recognise",
    ),
    "several": Family(
        "an encoder and the rows of each task",
        "edgetune.tune.data.source_recipe:SourceRecipe",
        "edgetune.several.recipe:SeveralRecipe",
        "edgetune.several.look:look",
        "edgetune.several.plan:plan",
        "edgetune.several.stages:PIPELINE",
        "edgetune.several.table:figure_rows",
        "edgetune.several.recognition:recognise",
    ),
}


@dataclass(frozen=True)
class Task:
    """A thing that a model can learn to do: its name in recipes, one sentence for people, and its family."""

    name: str
    summary: str
    family: str

    def load(self, part: str) -> Any:
        """What does one part of its family's work, such as "recipe" or "plan"."""
        return load(getattr(FAMILIES[self.family], part))


def load(reference: str) -> Any:
    """What "module:attribute" names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


GENERATION = "text-generation"
# Objectives of `--objective` that are tasks of their own, of encoders.
OBJECTIVE_TASKS = {"reward": "reward-model"}
# The first is the one that is taken where nothing speaks for any.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(Task(task.name, task.summary, task.family) for task in ONCE_TASKS.values()),
        Task(GENERATION, "Text that continues or answers a prompt.", "stepwise"),
        Task(
            SEVERAL_TASKS,
            "Several answers to a text, each of a task of its own, by one encoder in one pass.",
            "several",
        ),
    )
}
DEFAULT_TASK = next(iter(TASKS))

# The Hub's names of tasks (huggingface.co/tasks), of those that it calls otherwise.
_PIPELINE_TAGS = {
    "text-pair-classification": "text-classification",
    "multi-label-classification": "text-classification",
    "text-regression": "text-classification",
    "text-pair-regression": "text-classification",
    "reward-model": "text-classification",
}


def pipeline_tag(task: str) -> str:
    """What the Hub calls a task."""
    return _PIPELINE_TAGS.get(task, task)
