"""Data sets written as rows and read by a task, and what is refused of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgetune.serve.errors import DataError, EdgetuneError
from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.tasks import TASKS

Load = Callable[..., Dataset]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Rows as JSON lines, or as csv by the file's name."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(task, rows, suffix="csv", test=rows, **recipe)` is the data set of these rows."""

    def read(
        task: str,
        rows: Sequence[dict[str, Any]],
        *,
        suffix: str = "csv",
        test: Sequence[dict[str, Any]] = (),
        seed: int = 0,
        **recipe: Any,
    ) -> Dataset:
        if test:
            recipe["train"] = write_rows(tmp_path / f"train.{suffix}", rows)
            recipe["test"] = write_rows(tmp_path / f"test.{suffix}", test)
        else:
            recipe["path"] = write_rows(tmp_path / f"rows.{suffix}", rows)
        return Dataset.load(DataRecipe(**recipe), TASKS[task], seed=seed)

    return read


@pytest.fixture
def fault(load: Load) -> Callable[..., str]:
    """As `load`, of what is refused: the whole message."""

    def message(*arguments: Any, error: type[EdgetuneError] = DataError, **options: Any) -> str:
        with pytest.raises(error) as caught:
            load(*arguments, **options)
        return str(caught.value)

    return message


@pytest.fixture
def targets() -> Callable[[Dataset], dict[Any, Any]]:
    """`targets(dataset)` is the target of each input, of all parts."""

    def by_input(dataset: Dataset) -> dict[Any, Any]:
        parts = (dataset.train, dataset.validation, dataset.test)
        return {text: target for part in parts for text, target in zip(part.texts, part.targets, strict=True)}

    return by_input
