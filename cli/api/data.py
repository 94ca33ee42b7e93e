"""Rows that a program holds in memory, written as .jsonl files that the readers of every task read.

A file's name holds the digest of its content: the same rows are the same file, so that a second build opens what the
first one made. Neither pandas nor datasets is imported; where a program has not, its rows are none of theirs.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgetune.serve.errors import DataError
from edgetune.tune.data.json_documents import PART_NAMES
from edgetune.tune.data.source_names import SOURCES


class Frame(Protocol):
    """A pandas DataFrame."""

    @property
    def columns(self) -> Any:
        """The names of the columns."""

    def itertuples(self, index: bool = ..., name: Any = ...) -> Iterable[tuple[Any, ...]]:
        """The rows."""


class Table(Protocol):
    """A `datasets.Dataset`."""

    @property
    def features(self) -> Any:
        """The types of the columns, by name."""

    def with_format(self, type: str | None = ...) -> Any:
        """The same rows in another form."""


Source = str | Path | Sequence[Mapping[str, Any]] | Frame | Table
Data = Source | Mapping[str, Any]


def data_section(data: Data, folder: Path) -> dict[str, Any]:
    """The keys of a recipe's data section for `data`, whose rows in memory are written into `folder`.

    Args:
        data: a path or hub id, rows (a list of dicts, a pandas DataFrame, a `datasets.Dataset`), a
            `datasets.DatasetDict`, or a data section as a dict, whose path, train, validation, test, unlabeled,
            out_of_scope and corrections may be rows too.

    Raises:
        DataError: there are no rows, or a cell holds what JSON cannot.
    """
    if _is_instance(data, "datasets", "DatasetDict"):
        section = _splits(data)  # type: ignore[arg-type]
    elif isinstance(data, Mapping):
        section = dict(data)
    else:
        section = {"path": data}
    return {
        key: _source(value, key, folder) if key in SOURCES and value is not None else value
        for key, value in section.items()
    }


def _splits(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A DatasetDict's splits by part; splits that are no part are left out, as those of a saved one."""
    splits = {
        part: next((name for name in parts if str(name).lower() in names), None) for part, names in PART_NAMES.items()
    }
    if splits["train"] is None:
        raise DataError(
            f"The DatasetDict has no training part: it has {', '.join(map(str, parts)) or 'no split'}.",
            expected="a split named train",
            action='name the parts: data={"train": splits["..."], "test": splits["..."]}',
        )
    return {part: parts[name] for part, name in splits.items() if name is not None}


def _source(value: Any, part: str, folder: Path) -> str:
    """A path as it is, rows as the path of the file that they are written to."""
    if isinstance(value, (str, Path)):
        return str(value)
    content = "".join(_lines(_rows(value, part), part)).encode()
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = folder / f"{'rows' if part == 'path' else part}-{digest}.jsonl"
    if not path.is_file():  # a file that is there keeps its time of change, by which a build knows it
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        partial.write_bytes(content)
        partial.replace(path)
    return str(path)


def _rows(value: Any, part: str) -> Iterable[Mapping[str, Any]]:
    """The rows of what a program holds, as dicts.

    Raises:
        DataError: it is nothing that has rows.
    """
    if _is_instance(value, "pandas", "DataFrame"):
        return _frame_rows(value)
    if _is_instance(value, "datasets", "Dataset"):
        return _dataset_rows(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return value
    raise DataError(
        f"data ({part}) is of type {type(value).__name__}, which holds no rows.",
        expected="a path, a list of dicts, a pandas DataFrame or a datasets.Dataset",
        action="turn it into a list of dicts, one a row",
    )


def _is_instance(value: object, module: str, name: str) -> bool:
    """Whether a value is of a class of a library that may not be imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _frame_rows(frame: Frame) -> Iterator[dict[str, Any]]:
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(f"The DataFrame has two columns {double!r}.", expected="a name of its own for each column")
    return (dict(zip(names, cells, strict=True)) for cells in frame.itertuples(index=False, name=None))


def _dataset_rows(dataset: Table) -> Iterator[dict[str, Any]]:
    """Rows as they are stored: classes by name, and pictures not decoded."""
    features = dataset.features
    return (
        {name: _class_names(features[name], cell) for name, cell in row.items()}
        for row in dataset.with_format("arrow")[:].to_pylist()
    )


def _class_names(feature: Any, cell: Any) -> Any:
    """A cell with class numbers, also those in lists, replaced by their names; -1 is a hidden label, and none."""
    if type(feature).__name__ == "ClassLabel":
        return None if cell is None or cell < 0 else feature.names[cell]
    inner = getattr(feature, "feature", None)
    return [_class_names(inner, item) for item in cell] if inner is not None and isinstance(cell, list) else cell


def _lines(rows: Iterable[Mapping[str, Any]], part: str) -> Iterator[str]:
    """Each row as a line of JSON.

    Raises:
        DataError: there is no row, or what stands there cannot be written.
    """
    number = 0
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"Row {number} of data ({part}) is of type {type(row).__name__}.",
                expected='a dict a row, such as {"text": "where is my card", "label": "card_arrival"}',
            )
        cells = {str(name): _plain(value, f"row {number} of data ({part}), {name!r}") for name, value in row.items()}
        yield json.dumps(cells, ensure_ascii=False, allow_nan=False) + "\n"
    if number == 0:
        raise DataError(f"data ({part}) has no rows.", expected="at least two rows of each class")


def _plain(value: Any, place: str) -> Any:
    """A cell as JSON holds it: missing values as null, numpy's numbers as Python's, times in ISO 8601.

    Raises:
        DataError: JSON holds no such value.
    """
    if value is None or _is_missing(value):
        return None
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufUO":
        return _plain(value.tolist(), place)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f"{place}, {key!r}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, place) for inner in value]
    raise DataError(
        f"{place[0].upper()}{place[1:]}: a {type(value).__name__} ({str(value)[:40]}) cannot be written as JSON.",
        expected="texts, finite numbers, lists of them, or None where a value is missing",
        action="convert the column, or leave it out",
    )


def _is_missing(value: Any) -> bool:
    """Whether it is NaN, or the NA or NaT of pandas."""
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    pandas: Any = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)
