"""Which format a file's rows are written in: named by the user, or guessed and said; and the rows read by it.

A file has one format. Rows of another one, and rows that are not written as their format wants, are told together.
Must not import torch or transformers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted
from edgetune.tune.stepwise.chats import Chat
from edgetune.tune.stepwise.faults import Fault, faults_error
from edgetune.tune.stepwise.formats import FORMATS
from edgetune.tune.stepwise.formats.format import Format, FormatFault, cells
from edgetune.tune.stepwise.rows import RawRow, RawRows

# Of the formats that fit, the first that so many rows fit: a few rows of another must not decide.
MOST_ROWS = 0.5
PREFERENCES = (("chosen", "rejected"), ("chosen_messages", "rejected_messages"))
_JUDGED = ("messages", "conversations", "prompt", "completion", "instruction")
MOST_COLUMNS_NAMED = 6
MOST_COLUMNS_LISTED = 20


@dataclass(frozen=True)
class FormatChoice:
    """The format of a file, the column of each field, and what there is to say about how they were found."""

    format: Format
    columns: Mapping[str, str]
    findings: tuple[str, ...] = ()

    @property
    def prompt_columns(self) -> tuple[str, ...]:
        """The column that is a prompt by itself; none where prompts are made of several, or are lists of turns."""
        columns = tuple(self.columns[field] for field in self.format.asks if field in self.columns)
        return columns if len(columns) == 1 else ()


def choose_format(rows: RawRows, name: str | None, recipe_columns: Mapping[str, str]) -> FormatChoice:
    """The format `name`, else the one that most rows fit.

    Args:
        recipe_columns: columns by field, by the user's word.

    Raises:
        DataError: no format fits, or a column is not there.
    """
    chosen = FORMATS[name] if name else _guess(rows, recipe_columns)
    columns = _columns(chosen, rows, recipe_columns)
    for field in chosen.required:
        if field not in columns:
            raise _no_column(field, recipe_columns, rows, chosen.name)
    return FormatChoice(
        chosen, columns, _findings(chosen, columns, rows, guessed=name is None, recipe_columns=recipe_columns)
    )


def chats_of(parts: Sequence[RawRows], choice: FormatChoice) -> list[tuple[Chat, ...]]:
    """A chat a row, each with its place, of each of the parts.

    Raises:
        DataError: rows are of another format or damaged; the first twenty of all parts are listed, all are counted.
    """
    read = [_read(rows, choice) for rows in parts]
    faults = [fault for _, some in read for fault in some]
    if faults:
        sources = " and ".join(dict.fromkeys(rows.source for rows in parts))
        raise faults_error(
            faults,
            f"{counted(len(faults), 'row')} of {sum(map(len, parts)):,} in {sources} cannot be read as "
            f"{choice.format.name}:",
            expected=f"one format in all rows; a row of {choice.format.name} is {choice.format.example}",
            action="mend or remove these rows, or put them in a file of their own; another format is named with "
            "--set data.format=...",
        )
    return [chats for chats, _ in read]


def _read(rows: RawRows, choice: FormatChoice) -> tuple[tuple[Chat, ...], list[Fault]]:
    chats, faults = [], []
    for row in rows.rows:
        judged = "" if choice.format.judged else judgement(row.values)
        reason = row.fault or judged or _lack(row, choice)
        if not reason:
            try:
                chats.append(replace(choice.format.chat_of(cells(row.values, choice.columns)), place=row.place))
                continue
            except FormatFault as fault:
                reason = str(fault)
        faults.append(Fault(row.place, f"{reason}."))
    return tuple(chats), faults


def _guess(rows: RawRows, recipe_columns: Mapping[str, str]) -> Format:
    judged = sum(bool(judgement(row.values)) for row in rows.rows)
    known = {name: one for name, one in FORMATS.items() if bool(one.judged) or judged < MOST_ROWS * len(rows)}
    counts = {name: sum(one.may_be(row.values, recipe_columns) for row in rows.rows) for name, one in known.items()}
    readable = sum(not row.fault for row in rows.rows)
    likely = next((name for name, count in counts.items() if count >= MOST_ROWS * readable), None)
    best = likely or max(counts, key=lambda name: counts[name])
    if not counts[best]:
        missing = next((field for field, column in recipe_columns.items() if column not in _all_names(rows)), None)
        if missing is not None:
            raise _no_column(missing, recipe_columns, rows)
        raise DataError(
            f"{rows.source} is written in no format that is known: its columns are {_names(rows)}.",
            expected="one of " + "; ".join(f"{one.name}, such as {one.example}" for one in known.values()),
            action="name the format and its columns: --set data.format=prompt-completion "
            "--set data.columns.prompt=... --set data.columns.completion=...",
        )
    return FORMATS[best]


def _columns(chosen: Format, rows: RawRows, recipe_columns: Mapping[str, str]) -> dict[str, str]:
    """The column of each field: the one that most rows have it in."""
    votes: dict[str, Counter[str]] = {field.name: Counter() for field in chosen.fields}
    for row in rows.rows:
        for field, column in chosen.columns_in(row.values, recipe_columns).items():
            votes[field][column] += 1
    return {field: counter.most_common(1)[0][0] for field, counter in votes.items() if counter}


def _no_column(field: str, recipe_columns: Mapping[str, str], rows: RawRows, name: str = "") -> DataError:
    problem = (
        f"{rows.source} has no column {recipe_columns[field]!r}."
        if field in recipe_columns
        else f"{rows.source} has no column for the {field} of the format {name}."
    )
    return DataError(
        problem, expected=f"one of its columns: {_names(rows)}.", action=f"name it with --set data.columns.{field}=..."
    )


def _lack(row: RawRow, choice: FormatChoice) -> str:
    """What a row says that lacks a field: which format it looks like, or which column is missing."""
    missing = [choice.columns[field] for field in choice.format.required if choice.columns[field] not in row.values]
    if not missing:
        return ""
    other = next((one for one in FORMATS.values() if one.may_be(row.values, {})), None)
    if other is not None and other is not choice.format:
        return f"it is written as {other.name}, with the columns {', '.join(row.values)}"
    return f"it has no column {missing[0]!r}; its columns are {', '.join(row.values) or 'none'}"


def _findings(
    chosen: Format, columns: Mapping[str, str], rows: RawRows, *, guessed: bool, recipe_columns: Mapping[str, str]
) -> tuple[str, ...]:
    sources = ", ".join(f"{field} from column {column!r}" for field, column in columns.items())
    findings = []
    if guessed or set(columns) - set(recipe_columns):
        what = f"Format {chosen.name!r} was guessed" if guessed else f"Columns of the format {chosen.name!r} guessed"
        findings.append(f"{what}: {sources}.")
    unused = [name for name in _all_names(rows) if name not in columns.values()]
    if unused:
        more = f" and {len(unused) - MOST_COLUMNS_NAMED:,} more" if len(unused) > MOST_COLUMNS_NAMED else ""
        names = ", ".join(map(repr, unused[:MOST_COLUMNS_NAMED]))
        findings.append(f"Not used: {counted(len(unused), 'column')}: {names}{more}.")
    return tuple(findings)


def judgement(values: Mapping[str, object]) -> str:
    """What a row holds that ranks or judges answers instead of giving one; empty where it holds none."""
    names = {name.casefold() for name in values}
    for pair in PREFERENCES:
        if names.issuperset(pair):
            return f"it holds a preference ({' and '.join(pair)}), not an answer"
    judged = isinstance(values.get("label"), bool) and any(name in names for name in _JUDGED)
    if judged or "kto_tag" in names:
        return "it holds a judgement of its answer (true or false), not an answer alone"
    return ""


def _all_names(rows: RawRows) -> list[str]:
    return list(dict.fromkeys(name for row in rows.rows for name in row.values))


def _names(rows: RawRows) -> str:
    names = _all_names(rows)
    more = f" and {len(names) - MOST_COLUMNS_LISTED:,} more" if len(names) > MOST_COLUMNS_LISTED else ""
    return (", ".join(names[:MOST_COLUMNS_LISTED]) or "none") + more
