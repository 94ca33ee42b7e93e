"""The tuned models of several tasks on one encoder: each a tuned model of its task, whose trunk all have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgetune.tune.models.model import TunedModel
from edgetune.tune.models.stored import Stored

TASKS_FOLDER = "tasks"


@dataclass(frozen=True)
class TunedTasks(Stored):
    """What tuning several tasks leaves.

    Attributes:
        folder: of the stage; `tasks/<name>` is the tuned model of a task.
        names: of the tasks, in the order of the recipe.
        method: what is handed on, "probe" or the method that trained.
        gain: mean over tasks of what the validation metric gained over the probe, a share of an error.
    """

    file_name: ClassVar[str] = "tuned.json"
    noun: ClassVar[str] = "tuned model"
    command: ClassVar[str] = "tune"

    folder: Path
    names: tuple[str, ...]
    method: str
    gain: float

    @property
    def models(self) -> dict[str, TunedModel]:
        """The tuned model of each task, by its name."""
        return {name: TunedModel.open(self.folder / TASKS_FOLDER / name) for name in self.names}
