"""Cells that hold a list or an object, in JSON or as Python and pandas write one: several labels, or one in brackets.

Shared by the tasks on labels: one takes lists of one, the other lists of any length. Must not import torch.
"""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Sequence
from typing import Any

from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.reading import Table, word


def list_of(cell: str) -> list[Any] | None:
    """The list that a cell holds; None where it holds none."""
    value = value_of(cell, "[")
    return value if isinstance(value, list) else None


def value_of(cell: str, opening: str) -> object:
    """The value that a cell holds in JSON or as Python writes it, where it begins with `opening`; else None."""
    text = cell.strip()
    if text.startswith(opening):
        for read in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                value: object = read(text)
                return value
    return None


def are_lists_of_one(cells: Sequence[Any]) -> bool:
    """Whether all cells that hold anything are lists, none of more than one element and one at least of one."""
    filled = [cell for cell in cells if cell not in (None, "")]
    lists = [cell if isinstance(cell, list) else list_of(str(cell)) for cell in filled]
    return bool(lists) and {len(cell) if cell is not None else 2 for cell in lists} in ({1}, {0, 1})


def single_labels(table: Table, name: str) -> tuple[str, ...]:
    """The labels of a column, lists of one as their element; as they are where they are no lists.

    Raises:
        DataError: cells hold several labels, or objects.
    """
    cells = table.columns[name]
    objects = [cell for cell in cells if isinstance(value_of(cell, "{"), dict) or _is_list_of_objects(cell)]
    if objects:
        raise DataError(
            f"The column {name!r} of {table.source} holds objects in {counted(len(objects), 'row')}, such as "
            f"{objects[0]:.60}.",
            expected="a word or a number in each cell, the label.",
            action="write the field that is the label as a column of its own.",
        )
    lists = [list_of(cell) for cell in cells]
    filled = sum(bool(cell.strip()) for cell in cells)
    if not filled or sum(cell is not None for cell in lists) * 2 <= filled:
        return cells
    several = [cell for cell, listed in zip(cells, lists, strict=True) if listed is not None and len(listed) > 1]
    if several:
        raise DataError(
            f"The column {name!r} of {table.source} holds lists of labels, in {counted(len(several), 'row')} several, "
            f"such as {several[0]:.60}.",
            expected="one label a row for this task.",
            action="add --task multi-label-classification, or name another column with --set data.label=...",
        )
    pairs = zip(cells, lists, strict=True)
    return tuple(cell if listed is None else word(next(iter(listed), None)) for cell, listed in pairs)


def _is_list_of_objects(cell: str) -> bool:
    return any(isinstance(element, (dict, list)) for element in list_of(cell) or ())
