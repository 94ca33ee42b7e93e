"""The data sets of several tasks: each read, checked and split by its own task; an error says whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgetune.serve.errors import EdgetuneError
from edgetune.several.recipe import SeveralRecipe
from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.data.rows import Input


@dataclass(frozen=True)
class TaskDatasets:
    """The data set of each task, by its name."""

    parts: dict[str, Dataset]

    @classmethod
    def load(cls, recipe: SeveralRecipe) -> TaskDatasets:
        """Read all of them.

        Raises:
            DataError: naming the task whose data cannot be used.
        """
        parts = {}
        for name, part in recipe.tasks.items():
            with of_task(name):
                parts[name] = Dataset.load(part.data, part.task, seed=recipe.seed)
        return cls(parts)

    def save(self, folder: Path) -> None:
        """Write what `open` reads."""
        for name, dataset in self.parts.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            dataset.save(folder / name)

    @classmethod
    def open(cls, folder: Path, names: list[str]) -> TaskDatasets:
        """What `save` wrote of these tasks.

        Raises:
            WorkError: one of them is not there.
        """
        return cls({name: Dataset.open(folder / name) for name in names})

    def texts(self, part: str) -> tuple[Input, ...]:
        """The texts of one part of all tasks."""
        return tuple(text for dataset in self.parts.values() for text in getattr(dataset, part).texts)

    def joined(self, part: str) -> Part:
        """One part of all tasks as texts to calibrate by; targets, which nothing asks for, are zero."""
        texts = self.texts(part)
        return Part(texts, (0,) * len(texts))


@contextmanager
def of_task(name: str) -> Iterator[None]:
    """Errors inside name the task that they are of."""
    try:
        yield
    except EdgetuneError as error:
        raise type(error)(
            f"In the task {name}: {error.found}", expected=error.expected, action=error.action, cost=error.cost
        ) from error
