"""Which column holds the texts and which the labels: named by the user, or guessed and said.

A guess rests on usual names first, then on the rows: texts are long and differ, labels come again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgetune.serve.errors import DataError
from edgetune.tune.data.dialect import LABEL_NAMES, NUMBER, TEXT_NAMES
from edgetune.tune.data.reading import Table

# Of two unnamed columns the longer is the text only if it is clearly longer: a pair of sentences is no text.
CLEARLY_LONGER = 1.5


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
        DataError: a named column is not there, or a column cannot be guessed.
    """
    for name, key in ((text, "text"), (label, "label")):
        if name is not None:
            require_column(table, name, key)
    if text is not None and text == label:
        raise _undecided(table, f"data.text and data.label both name the column {text!r}.")
    label_column = label or _usual_label(table, text)
    text_column = text or _guess_text(table, label_column)
    label_column = label_column or _guess_label(table, text_column)
    return Columns((text_column,), (label_column,), _guesses(text, label, text_column, label_column))


def require_column(table: Table, name: str, field: str) -> None:
    """Check that `table` has the column `name`, which the recipe's `field` asks for."""
    if name not in table.columns:
        raise DataError(
            f"{table.source} has no column {name!r}.",
            expected=f"one of its columns: {_listed(table)}.",
            action=f"name the {field} column with --set data.{field}=...",
        )


def _guesses(text: str | None, label: str | None, text_column: str, label_column: str) -> tuple[str, ...]:
    if text is None and label is None:
        return (f"Text column {text_column!r} and label column {label_column!r} were guessed.",)
    if text is None:
        return (f"Text column {text_column!r} was guessed.",)
    if label is None:
        return (f"Label column {label_column!r} was guessed.",)
    return ()


def _usual_label(table: Table, text: str | None) -> str | None:
    """The column with the most usual name of a label, if any has one."""
    names = {name.casefold(): name for name in table.columns if name != text}
    return next((names[usual] for usual in LABEL_NAMES if usual in names), None)


def _guess_text(table: Table, label: str | None) -> str:
    candidates = [name for name in table.columns if name != label and _is_wordy(table.columns[name])]
    usual = [name for name in candidates if name.casefold() in TEXT_NAMES]
    ranked = sorted(usual or candidates, key=lambda name: _mean_length(table.columns[name]), reverse=True)
    if not ranked:
        raise _undecided(table, "no column looks like texts")
    if len(ranked) > 1 and not usual:
        longest, second = (_mean_length(table.columns[name]) for name in ranked[:2])
        if longest < CLEARLY_LONGER * second:
            raise _undecided(table, f"{ranked[0]!r} and {ranked[1]!r} could both be the text")
    return ranked[0]


def _guess_label(table: Table, text: str) -> str:
    """The column with the fewest different values, of those whose values come again."""
    kinds = {name: len(set(values)) for name, values in table.columns.items() if name != text}
    repeating = {name: count for name, count in kinds.items() if 2 <= count <= max(len(table) // 2, 2)}
    if not repeating:
        raise _undecided(table, "no column looks like labels")
    fewest = min(repeating.values())
    candidates = [name for name, count in repeating.items() if count == fewest]
    if len(candidates) > 1:
        raise _undecided(table, f"{candidates[0]!r} and {candidates[1]!r} could both be the label")
    return candidates[0]


def _is_wordy(values: Sequence[str]) -> bool:
    """Whether a column holds more than one value, and more than numbers."""
    return len(set(values)) > 1 and not all(NUMBER.fullmatch(value) for value in values if value)


def _mean_length(values: Sequence[str]) -> float:
    return sum(map(len, values)) / max(len(values), 1)


def _listed(table: Table) -> str:
    return ", ".join(repr(name) for name in table.columns)


def _undecided(table: Table, reason: str) -> DataError:
    return DataError(
        f"The text and label columns of {table.source} cannot be told: {reason.rstrip('.')}. "
        f"Its columns are {_listed(table)}.",
        expected="one column of texts and one of labels.",
        action="name them: --set data.text=... --set data.label=... (edgetune init: --text and --label).",
    )
