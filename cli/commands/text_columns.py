"""Which columns of a file `edgetune predict` answers: those named, those of the training data, or as training guesses.

The choice is always said: another column than the one that was learnt gives answers that look right. Floor only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgetune.serve.codecs.text_pair import usual_pair
from edgetune.serve.errors import DataError, InputError, RecipeError
from edgetune.tune.data.column_names import LABEL_NAMES, TEXT_NAMES
from edgetune.tune.data.columns import choose_columns
from edgetune.tune.data.dialect import NUMBER
from edgetune.tune.data.reading import Table

# A name is much shorter than the texts below it.
TEXTS_ARE_LONGER = 3


@dataclass(frozen=True)
class ColumnRequest:
    """What is asked of a file's columns.

    Attributes:
        parts: names of the texts of one input.
        named: columns by the user's word, one a part; none to choose them.
        trained: columns of the training data, one a part; none where the bundle does not say.
        preferred: usual names that are taken before a guess, best first.
    """

    parts: tuple[str, ...]
    named: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    preferred: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """The columns that are looked for by name."""
        return self.named or self.trained


def choose_text_columns(table: Table, request: ColumnRequest) -> tuple[tuple[str, ...], str]:
    """The columns of the parts, and a sentence that names them.

    Args:
        table: all rows of the file, or the first of many.

    Raises:
        InputError: a named column is not there, or none can be told.
    """
    if missing := [name for name in request.named if name not in table.columns]:
        raise _undecided(table, request, f"has no column {missing[0]!r}")
    if request.named:
        return request.named, _sentence(table, request.named, "as --column says")
    if request.trained and all(name in table.columns for name in request.trained):
        return request.trained, _sentence(table, request.trained, "as in training")
    names = _guessed(table, request)
    why = "the only one" if len(table.columns) == 1 else "a guess; --column says otherwise"
    absent = [name for name in request.trained if name not in table.columns]
    if absent and len(table.columns) > 1:
        why = f"a guess, since training's column {absent[0]!r} is not there; --column says otherwise"
    return names, _sentence(table, names, why)


def header_is_doubtful(table: Table, request: ColumnRequest) -> bool:
    """Whether the first line, taken for a header, may as well be a row: nothing of it is known for a name.

    A known name, a name above numbers, or a short word above texts says that it is a header.
    """
    names = {name.casefold() for name in table.columns}
    usual = {*LABEL_NAMES, *TEXT_NAMES, *request.preferred, *request.parts, *map(str.casefold, request.known)}
    if names & usual or usual_pair(list(table.columns)):
        return False
    for name, cells in table.columns.items():
        if not NUMBER.fullmatch(name) and all(map(NUMBER.fullmatch, cells)):
            return False
    name, cells = max(table.columns.items(), key=lambda column: sum(map(len, column[1])))
    spaced = sum(" " in cell.strip() for cell in cells) * 2 > len(cells)
    longer = sum(map(len, cells)) > TEXTS_ARE_LONGER * len(name) * len(cells)
    return " " in name or not (spaced or longer)


def may_name_columns(line: str, request: ColumnRequest) -> bool:
    """Whether a line holds the known columns, or where none are known several usual names and nothing else."""
    cells = {cell.strip(" \"'") for cell in re.split(r"[,;|\t]", line)}
    if request.known:
        return cells.issuperset(request.known)
    return len(cells) > 1 and {cell.casefold() for cell in cells} <= {*LABEL_NAMES, *TEXT_NAMES}


def _sentence(table: Table, names: Sequence[str], why: str) -> str:
    columns = f"column{'s' * (len(names) > 1)} {' and '.join(map(repr, names))}"
    return f"Texts of {table.source} are read from {columns} ({why})."


def _guessed(table: Table, request: ColumnRequest) -> tuple[str, ...]:
    """The columns of the parts, chosen as in training.

    Raises:
        InputError: none can be told.
    """
    by_name = {name.casefold(): name for name in table.columns}
    if len(request.parts) > 1:
        if by_name.keys() >= {*request.parts}:
            return tuple(by_name[part] for part in request.parts)
        pair = usual_pair(list(table.columns))
        if pair is None:
            raise _undecided(table, request, f"does not say which column holds the {' and the '.join(request.parts)}")
        return pair
    if len(table.columns) == 1:
        return tuple(table.columns)
    if preferred := [by_name[name] for name in request.preferred if name in by_name]:
        return (preferred[0],)
    try:
        return _as_in_training(table)
    except (DataError, RecipeError) as error:
        usual = [by_name[name] for name in TEXT_NAMES if name in by_name]
        if len(usual) == 1:  # a row or two tell nothing beyond the names
            return (usual[0],)
        raise _undecided(table, request, "does not say which column holds the texts") from error


def _as_in_training(table: Table) -> tuple[str, ...]:
    """The text column that training would choose, with or without labels beside it.

    Raises:
        DataError: it would choose none.
    """
    try:
        return choose_columns(table, None, None).texts
    except (DataError, RecipeError):
        # An empty column stands for the labels, which a file to be answered need not have.
        unlabelled = replace(table, columns={**table.columns, "": ("",) * len(table)})
        return choose_columns(unlabelled, None, "").texts


def _undecided(table: Table, request: ColumnRequest, problem: str) -> InputError:
    options = " ".join(f"--column {part.upper()}" for part in request.parts)
    return InputError(
        f"{table.source} {problem}; its columns are {', '.join(table.columns)}.",
        action="name one with --column" if len(request.parts) == 1 else f"name them: {options}",
    )
