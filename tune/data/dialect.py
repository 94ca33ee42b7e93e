"""How a delimited file is written: its delimiter, whether quotes enclose fields, and whether it has a header.

Stands apart from the reading, because these are guesses that a user may want to look up and overrule.
Every record is parsed here once, by the standard library, so that a line with too many or too few fields is found by
its number. Must not import torch, pandas or datasets.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgetune.serve.errors import DataError
from edgetune.tune.data.column_names import HEADING_NAMES, LABEL_NAMES, TEXT_NAMES

DELIMITERS = (",", ";", "\t", "|")
SAMPLE_RECORDS = 100
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_DECLARATION = re.compile(r'"?sep=(.)"?(?=\r?\n|\r)', re.IGNORECASE)
_BACKSLASHES = re.compile(r'(\\+)"')


@dataclass(frozen=True)
class FileOptions:
    """What the user says about how files are written; None is detected.

    `likely_encoding` is what another file of the same source was read as, in place of a guess.
    """

    encoding: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    likely_encoding: str | None = None


@dataclass(frozen=True)
class Record:
    """One record of a delimited file and the line, counted from 1, on which it starts."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Dialect:
    """How one delimited file is written; `names` are its columns, from the header or made up, `rows` its records."""

    delimiter: str
    header: bool
    names: tuple[str, ...]
    rows: tuple[Record, ...]
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Parsed:
    records: tuple[Record, ...]
    broken: bool = False

    @property
    def width(self) -> int:
        """The number of fields that most records have."""
        counts = Counter(len(record.cells) for record in self.records)
        return counts.most_common(1)[0][0] if counts else 0

    @property
    def ragged(self) -> tuple[Record, ...]:
        """The records that have another number of fields than most."""
        width = self.width
        return tuple(record for record in self.records if len(record.cells) != width)


def detect_dialect(text: str, options: FileOptions, *, name: str, preferred: str) -> Dialect:
    """Find out how `text`, the whole content of the file `name`, is written.

    Args:
        text: decoded content, without byte order mark.
        options: what needs no detection.
        name: the file, for messages.
        preferred: the delimiter that wins where several fit alike.

    Raises:
        DataError: a record has more or fewer fields than the others, or there are no rows.
    """
    text, declared = _without_declaration(text)
    with _long_fields(len(text)):
        delimiter = options.delimiter or declared or _delimiter(text, preferred)
        parsed, findings = _parse_with_best_quoting(text, delimiter, name)
    if not parsed.records:
        raise DataError(f"{name} holds only blank lines.", expected="one labelled text a line.")
    if parsed.ragged:
        raise _ragged(parsed, delimiter, name)
    header = has_header([record.cells for record in parsed.records]) if options.header is None else options.header
    names = _column_names(parsed.records[0].cells, header)
    rows = parsed.records[header:]
    if not rows:
        raise DataError(
            f"{name} has a header ({', '.join(names)}) and no rows.",
            expected="at least two rows of each class.",
            action="add rows, or pass --set data.header=false if its first line is a row.",
        )
    if not header:
        findings += (f"{name} has no header: its {len(names)} columns are named {', '.join(names)}.",)
    findings += _renamed(parsed.records[0].cells if header else (), names, name)
    return Dialect(delimiter, header, names, rows, findings)


def _without_declaration(text: str) -> tuple[str, str]:
    """The text without the line `sep=;` by which Excel is told the delimiter, and that delimiter; "" without one."""
    line = _DECLARATION.match(text)
    # The line end stays, so that lines keep their numbers.
    return (text[line.end() :], line.group(1)) if line else (text, "")


def has_header(records: list[tuple[str, ...]]) -> bool:
    """Whether the first of `records` names columns, rather than being a row itself.

    Names of a usual kind say yes, and so do numbers in order above texts, as pandas writes columns without names; a
    cell that comes again below it, or a number above numbers, says no.
    """
    first = [cell.strip() for cell in records[0]]
    if _is_numbered(first) and len(records) > 1:
        return any(_is_words([row[i] for row in records[1:]]) for i in range(len(first)))
    usual = sum(cell.casefold() in (*LABEL_NAMES, *TEXT_NAMES, *HEADING_NAMES) for cell in first)
    if usual >= 2 or len(records) == 1:
        return usual > 0
    columns = [{row[i].strip() for row in records[1:]} for i in range(len(first))]
    if any(cell and cell in column for cell, column in zip(first, columns, strict=True)):
        return False
    numeric = [all(map(NUMBER.fullmatch, column)) for column in columns]
    if any(NUMBER.fullmatch(cell) and numbers for cell, numbers in zip(first, numeric, strict=True)):
        return False
    return usual > 0 or any(numeric) or not any(map(_is_prose, first))


def _is_numbered(first: list[str]) -> bool:
    """Whether cells count from 0 or 1, behind the empty one of an index column."""
    names = first[1:] if first[0] == "" else first
    return len(names) > 1 and any(names == list(map(str, range(start, len(names) + start))) for start in (0, 1))


def _is_words(cells: list[str]) -> bool:
    """Whether most cells are words, and none of them a number."""
    return sum(len(cell.split()) > 1 for cell in cells) * 2 > len(cells) and not any(map(NUMBER.fullmatch, cells))


def _is_prose(cell: str) -> bool:
    return len(cell) > 40 or len(cell.split()) > 4 or cell.endswith((".", "!", "?", "。", "！", "？"))


def _delimiter(text: str, preferred: str) -> str:
    """The delimiter that cuts most of the first records into the same number of fields, two or more."""
    order = (preferred, *(other for other in DELIMITERS if other != preferred))
    return max(order, key=lambda delimiter: _consistency(text, delimiter))


def _consistency(text: str, delimiter: str) -> float:
    """The share of the first records that have the usual number of fields; 0.0 where that is one."""
    best = 0.0
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        records = list(itertools.islice(_records(text, delimiter, quoting), SAMPLE_RECORDS))
        parsed = _Parsed(tuple(records))
        if parsed.width > 1:
            best = max(best, 1 - len(parsed.ragged) / len(records))
    return best


def _parse_with_best_quoting(text: str, delimiter: str, name: str) -> tuple[_Parsed, tuple[str, ...]]:
    """Parse with quotes that enclose fields and with quotes as plain text; keep what loses no line."""
    quoted = _enclosed(text, delimiter)
    if '"' not in text:
        return quoted, ()
    if _is_flawed(quoted) and '\\"' in text:
        escaped = _enclosed(_BACKSLASHES.sub(_doubled, text), delimiter)
        if not _is_flawed(escaped):
            return escaped, (f"The quotes inside texts of {name} are escaped with a backslash.",)
    plain = _Parsed(tuple(_records(text, delimiter, csv.QUOTE_NONE)))
    swallowed = len(plain.records) - len(quoted.records)
    # Texts with tabs and line breaks inside quotes are rare, stray quotes in a tab-separated file are not.
    suspicious = _is_flawed(quoted) or (delimiter == "\t" and swallowed > 0)
    if len(plain.ragged) > len(quoted.ragged) or (plain.ragged and not quoted.ragged) or not suspicious:
        return quoted, ()
    loss = f": read as enclosing fields they would swallow {swallowed:,} lines" if swallowed else ""
    return plain, (f"The quote characters in {name} are part of its texts{loss}.",)


def _enclosed(text: str, delimiter: str) -> _Parsed:
    """The records where quotes enclose fields."""
    return _Parsed(
        tuple(_records(text, delimiter, csv.QUOTE_MINIMAL)), '"' in text and _breaks_quoting(text, delimiter)
    )


def _is_flawed(parsed: _Parsed) -> bool:
    return parsed.broken or bool(parsed.ragged)


def _doubled(match: re.Match[str]) -> str:
    r"""A quote behind backslashes by the CSV rules; Spark and MySQL write \" for a quote and \\ for a backslash."""
    count = len(match.group(1))
    return "\\" * (count // 2) + '"' * (1 + count % 2)


def _breaks_quoting(text: str, delimiter: str) -> bool:
    """Whether a quote that opens a field is closed elsewhere than at the field's end, or never."""
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            pass
    except csv.Error:
        return True
    return False


def _records(text: str, delimiter: str, quoting: int) -> Iterator[Record]:
    """The records of `text` but for blank lines, which carry nothing."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    line = 1
    for cells in reader:
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield Record(line, tuple(cells))
        line = reader.line_num + 1


@contextmanager
def _long_fields(characters: int) -> Iterator[None]:
    """Let a field have as many `characters` as the file: csv's own limit of 131,072 refuses long texts."""
    before = csv.field_size_limit(max(characters, 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _column_names(first: tuple[str, ...], header: bool) -> tuple[str, ...]:
    """Names that are never empty and never twice the same; a frame's index column has an empty one."""
    given = [cell.strip() if header else "" for cell in first]
    names: list[str] = []
    for number, cell in enumerate(given, start=1):
        if cell and cell not in names:
            names.append(cell)
            continue
        name = f"{cell or 'column'}_{number}"
        others = itertools.chain([name], (f"{name}_{suffix}" for suffix in itertools.count(2)))
        names.append(next(other for other in others if other not in names and other not in given))
    return tuple(names)


def _renamed(first: tuple[str, ...], names: tuple[str, ...], source: str) -> tuple[str, ...]:
    """What to say of columns whose name another one before them has."""
    given = [cell.strip() for cell in first]
    pairs = [f"{old!r} again is named {new!r}" for old, new in zip(given, names, strict=False) if old and old != new]
    return (f"Columns of {source} have the same name: {', '.join(pairs)}.",) if pairs else ()


def _ragged(parsed: _Parsed, delimiter: str, name: str) -> DataError:
    record, others = parsed.ragged[0], len(parsed.ragged) - 1
    fields = len(record.cells)
    more = f" {others:,} more lines have this fault." if others else ""
    return DataError(
        f"{name}, line {record.line}: {fields} field{'s' if fields != 1 else ''}, "
        f"where the other lines have {parsed.width}.{more}",
        expected=f"{parsed.width} fields on every line, separated by {delimiter!r}.",
        action="enclose a text that contains the delimiter in double quotes, or name another delimiter "
        "with --set data.delimiter=...",
    )
