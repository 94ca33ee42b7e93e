"""How a delimited file is written: its delimiter, whether quotes enclose fields, and whether it has a header.

Stands apart from the reading, because these are guesses that a user may want to look up and overrule.
Every record is parsed here once, so that a line with too many or too few fields is found by its number.
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

DELIMITERS = (",", ";", "\t", "|")
SAMPLE_RECORDS = 100
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")

# In this order of preference: `label` before `label_text`'s kin. Text columns are told apart by length.
LABEL_NAMES = (
    *("label", "labels", "category", "intent", "class", "target", "sentiment", "topic", "emotion", "tag"),
    *("polarity", "stars", "rating", "type", "y", "标签", "类别", "分类"),
)
TEXT_NAMES = (
    *("text", "texts", "sentence", "review", "message", "content", "title", "question", "query", "utterance"),
    *("comment", "body", "document", "description", "tweet", "input", "headline", "abstract", "post"),
    *("文本", "内容", "评论", "标题"),
)


@dataclass(frozen=True)
class FileOptions:
    """What the user says about how files are written; None is detected."""

    encoding: str | None = None
    delimiter: str | None = None
    header: bool | None = None


@dataclass(frozen=True)
class Record:
    """One record of a delimited file and the line, counted from 1, on which it starts."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Dialect:
    """How one delimited file is written; `names` are its columns, from the header or made up."""

    delimiter: str
    quoting: int
    header: bool
    names: tuple[str, ...]
    rows: int
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Parsed:
    records: tuple[Record, ...]
    quoting: int
    broken: bool

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
    with _long_fields(len(text)):
        delimiter = options.delimiter or _delimiter(text, preferred)
        parsed, findings = _parse_with_best_quoting(text, delimiter, name)
    if not parsed.records:
        raise DataError(f"{name} holds only blank lines.", expected="one labelled text a line.")
    if parsed.ragged:
        raise _ragged(parsed, delimiter, name)
    header = has_header([record.cells for record in parsed.records]) if options.header is None else options.header
    names = _column_names(parsed.records[0].cells, header)
    rows = len(parsed.records) - header
    if not rows:
        raise DataError(
            f"{name} has a header ({', '.join(names)}) and no rows.",
            expected="at least two rows of each class.",
            action="add rows, or pass --set data.header=false if its first line is a row.",
        )
    if not header:
        findings += (f"{name} has no header: its {len(names)} columns are named {', '.join(names)}.",)
    return Dialect(delimiter, parsed.quoting, header, names, rows, findings)


def has_header(records: list[tuple[str, ...]]) -> bool:
    """Whether the first of `records` names columns, rather than being a row itself.

    A name of a usual kind says yes; a cell that comes again below it, or a number above numbers, says no.
    """
    first = [cell.strip() for cell in records[0]]
    usual = sum(cell.casefold() in (*LABEL_NAMES, *TEXT_NAMES) for cell in first)
    if usual >= 2 or len(records) == 1:
        return usual > 0
    columns = [{row[i].strip() for row in records[1:]} for i in range(len(first))]
    if any(cell and cell in column for cell, column in zip(first, columns, strict=True)):
        return False
    numeric = [all(map(NUMBER.fullmatch, column)) for column in columns]
    if any(NUMBER.fullmatch(cell) and numbers for cell, numbers in zip(first, numeric, strict=True)):
        return False
    return usual > 0 or any(numeric) or not any(map(_is_prose, first))


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
        parsed = _Parsed(tuple(records), quoting, broken=False)
        if parsed.width > 1:
            best = max(best, 1 - len(parsed.ragged) / len(records))
    return best


def _parse_with_best_quoting(text: str, delimiter: str, name: str) -> tuple[_Parsed, tuple[str, ...]]:
    """Parse with quotes that enclose fields and with quotes as plain text; keep what loses no line."""
    quoted = _Parsed(tuple(_records(text, delimiter, csv.QUOTE_MINIMAL)), csv.QUOTE_MINIMAL, broken=False)
    if '"' not in text:
        return quoted, ()
    quoted = _Parsed(quoted.records, quoted.quoting, broken=_breaks_quoting(text, delimiter))
    plain = _Parsed(tuple(_records(text, delimiter, csv.QUOTE_NONE)), csv.QUOTE_NONE, broken=False)
    swallowed = len(plain.records) - len(quoted.records)
    # Texts with tabs and line breaks inside quotes are rare, stray quotes in a tab-separated file are not.
    suspicious = quoted.broken or bool(quoted.ragged) or (delimiter == "\t" and swallowed > 0)
    if len(plain.ragged) > len(quoted.ragged) or (plain.ragged and not quoted.ragged) or not suspicious:
        return quoted, ()
    loss = f": read as enclosing fields they would swallow {swallowed:,} lines" if swallowed else ""
    return plain, (f"The quote characters in {name} are part of its texts{loss}.",)


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
    names: list[str] = []
    for number, cell in enumerate(first, start=1):
        name = (cell.strip() if header else "") or f"column_{number}"
        names.append(f"{name}_{number}" if name in names else name)
    return tuple(names)


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
