"""Which column holds the texts and which the labels: named by the user, or guessed and said.

A guess takes names, kinds of values and how often they come again together: texts are long and differ, labels repeat.
Where two readings are near, nothing is guessed: the error has the command for each.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from edgetune.serve.errors import DataError, UndecidedColumns
from edgetune.tune.data.column_names import (
    NEAR,
    are_siblings,
    is_heading_name,
    is_side_name,
    label_points,
    text_rank,
)
from edgetune.tune.data.dialect import NUMBER
from edgetune.tune.data.json_documents import part_of
from edgetune.tune.data.reading import Table

# Of two columns the longer is the text only if it is clearly longer: a pair of sentences is no text.
CLEARLY_LONGER = 1.5
# A usual name does not make a text of a column beside which another is longer by this.
FAR_LONGER = 4.0
PLAIN_NAMES = ("text", "texts", "sentence", "文本")
PROSE_WORDS = 4  # of a cell, on average
MOST_CODES = 20  # more different numbers are no classes, unless the column's name says so
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([ T].*)?|\d\d?[./]\d\d?[./]\d{2,4}.*")
_NESTED = re.compile(r"\[.*\]|\{.*\}", re.DOTALL)  # a list or an object as JSON
_ADDRESS = re.compile(r"https?://\S+|www\.\S+|\S+@\S+\.\w+")


@dataclass(frozen=True)
class Columns:
    """The columns that inputs and targets are read from, and what there is to say about how they were chosen."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    findings: tuple[str, ...] = field(default=(), compare=False)
    separator: str = ""  # of several labels in one cell


def choose_columns(table: Table, text: str | None, label: str | None) -> Columns:
    """Take the columns that are named and guess the others.

    Raises:
        DataError: a named column is not there, or no column can be what is missing.
        UndecidedColumns: two columns can be it.
    """
    for name, key in ((text, "text"), (label, "label")):
        if name is not None:
            require_column(table, name, key)
    if text is not None and text == label:
        raise _none_fits(table, f"data.text and data.label both name the column {text!r}")
    label_column = label or _guess_label(table, text, named=True)
    text_column = text or _guess_text(table, label_column)
    label_column = label_column or _guess_label(table, text_column, named=False)
    if label_column is None:
        raise _none_fits(table, "no column looks like labels")
    return Columns((text_column,), (label_column,), _guesses(text, label, text_column, label_column))


def require_column(table: Table, name: str, field: str) -> None:
    """Check that `table` has the column `name`, which the recipe's `field` asks for."""
    if name not in table.columns:
        raise DataError(
            f"{table.source} has no column {name!r}.",
            expected=f"one of its columns: {_listed(table)}.",
            action=f"name the {field} column with --set data.{field}=...",
        )


def possible_labels(columns: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The columns that labels may stand in, by their points; those with a usual name whatever their values are."""
    points = {name: _points(name, cells) for name, cells in columns.items()}
    return {name: value for name, value in points.items() if value is not None}


def _guesses(text: str | None, label: str | None, text_column: str, label_column: str) -> tuple[str, ...]:
    if text is None and label is None:
        return (f"Text column {text_column!r} and label column {label_column!r} were guessed.",)
    if text is None:
        return (f"Text column {text_column!r} was guessed.",)
    if label is None:
        return (f"Label column {label_column!r} was guessed.",)
    return ()


def _guess_label(table: Table, text: str | None, *, named: bool) -> str | None:
    """The column with the most points, of all but the text's or of those with a usual name of labels alone."""
    rest = {name: cells for name, cells in table.columns.items() if name != text}
    points = {name: value for name, value in possible_labels(rest).items() if value > 1.0 or not named}
    if not points:
        return None
    best = max(points, key=lambda name: points[name])
    near = [
        name
        for name, value in points.items()
        if name != best
        and points[best] - value < NEAR
        and not (points[best] > 0 and _say_the_same(rest[name], rest[best]))
    ]
    if near:
        raise _undecided(table, "label", [best, *near])
    return best


def _points(name: str, cells: Sequence[str]) -> float | None:
    """How well a column suits labels; None where it cannot hold any."""
    points = label_points(name)
    filled = [cell for cell in cells if cell.strip()]
    kinds = set(filled)
    if points < 4.0 and _are_parts(kinds):
        return None
    repeating = 2 <= len(kinds) <= max(len(cells) // 2, 2)
    numbers = all(map(NUMBER.fullmatch, kinds))
    if points > 0.0:
        return points if repeating else points - 0.5
    odd = any(_DATE.fullmatch(kind) or _ADDRESS.fullmatch(kind) for kind in kinds)
    if not repeating or odd or (numbers and len(kinds) > MOST_CODES):
        return None
    return points - 0.5 * numbers


def _are_parts(kinds: set[str]) -> bool:
    """Whether values name parts of a data set, training among them."""
    parts = {part_of(kind) for kind in kinds}
    return "train" in parts and None not in parts


def _say_the_same(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two columns divide the rows alike, as numbers and names of classes do."""
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


def _guess_text(table: Table, label: str | None) -> str:
    wordy = {name: cells for name, cells in table.columns.items() if name != label and _is_wordy(cells)}
    varied = {name: cells for name, cells in wordy.items() if 2 * len(set(cells)) > len(cells)}
    lengths = {name: _mean_length(cells) for name, cells in (varied or wordy).items()}
    if not lengths:
        raise _none_fits(table, "no column looks like texts")
    best = max(lengths, key=lambda name: (text_rank(name), lengths[name]))
    exact = next((name for name in lengths if _is_plain(name)), best)
    if lengths[best] < CLEARLY_LONGER * lengths[exact]:
        best = exact
    prose = {name for name in lengths if _is_prose(name, wordy[name])}
    rivals = [name for name in lengths if name != best and _may_be_meant(name, best, lengths, prose)]
    if rivals:
        raise _undecided(table, "text", [best, *rivals])
    return best


def _may_be_meant(name: str, best: str, lengths: Mapping[str, float], prose: Collection[str]) -> bool:
    """Whether a column may be the text as well as the best one, or one half of a pair with it."""
    longer = lengths[best] / lengths[name]
    if are_siblings(name, best):
        return longer < FAR_LONGER
    if _is_plain(best):
        return False
    if text_rank(name) < text_rank(best):
        return longer * FAR_LONGER < 1
    return longer < (FAR_LONGER if {name, best} <= set(prose) else CLEARLY_LONGER)


def _is_prose(name: str, cells: Sequence[str]) -> bool:
    """Whether a column holds sentences, and by its name neither headings nor what stands beside texts."""
    words = sum(len(cell.split()) for cell in cells) / max(len(cells), 1)
    return words >= PROSE_WORDS and not is_heading_name(name) and not is_side_name(name)


def _is_plain(name: str) -> bool:
    """Whether a name leaves no doubt."""
    return name.strip().casefold() in PLAIN_NAMES


def _is_wordy(values: Sequence[str]) -> bool:
    """Whether a column holds more than one value, and mostly words: no numbers, dates, addresses, lists or parts."""
    kinds = {value for value in values if value.strip()}
    odd = sum(any(kind.fullmatch(value.strip()) for kind in (NUMBER, _DATE, _ADDRESS, _NESTED)) for value in kinds)
    return len(kinds) > 1 and 2 * odd <= len(kinds) and odd < len(kinds) and not _are_parts(kinds)


def _mean_length(values: Sequence[str]) -> float:
    return sum(map(len, values)) / max(len(values), 1)


def _listed(table: Table) -> str:
    return ", ".join(map(repr, table.columns)) + _left_out(table)


def _nested(table: Table) -> list[str]:
    """The columns whose cells are all lists or objects."""
    return [
        name
        for name, cells in table.columns.items()
        if (filled := [cell.strip() for cell in cells if cell.strip()]) and all(map(_NESTED.fullmatch, filled))
    ]


def _left_out(table: Table) -> str:
    """The columns that could not be read, which may be the ones that are looked for."""
    return "".join(f" ({finding.rstrip('.')})" for finding in table.findings if finding.endswith("was left out."))


def _none_fits(table: Table, reason: str) -> DataError:
    if nested := _nested(table):
        return DataError(
            f"The text and label columns of {table.source} are not clear: {reason}. Its columns are {_listed(table)}; "
            f"{', '.join(map(repr, nested))} hold lists or objects.",
            expected="one column of texts and one of labels, a word or text in each cell.",
            action="write the text and the label inside them as columns of their own, with a row for each text; "
            "of chats --task text-generation says how they are written.",
        )
    return DataError(
        f"The text and label columns of {table.source} are not clear: {reason}. Its columns are {_listed(table)}.",
        expected="one column of texts and one of labels.",
        action="name them: --set data.text=... --set data.label=... (edgetune init: --text and --label).",
    )


def _undecided(table: Table, field: str, names: Sequence[str]) -> UndecidedColumns:
    commands = [_setting(field, name) for name in names]
    if field == "text" and len(names) == 2:
        commands.append(f"for pairs of texts {_setting('text', names[0])} {_setting('text_pair', names[1])}")
    return UndecidedColumns(
        f"The {field} column of {table.source} is not clear: "
        f"{' and '.join(map(repr, names))} could {'both' if len(names) == 2 else 'all'} be the {field}. "
        f"Its columns are {_listed(table)}.",
        expected=f"one column of {field}s.",
        action=f"add {', or '.join(commands)}.",
    )


def _setting(field: str, name: str) -> str:
    return f"--set {shlex.quote(f'data.{field}={name}')}"
