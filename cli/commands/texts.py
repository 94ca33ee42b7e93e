"""Inputs as commands take them: arguments, a file (csv, tsv, jsonl or plain lines), or standard input. Floor only.

An input is one text, or several parts (`parts` names them): then they are columns of a file, and on a line or in an
argument they are separated by a tab.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import click

from edgetune.serve.codecs.text_pair import usual_pair
from edgetune.serve.errors import InputError

COLUMN_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
TEXT_NAMES = ("text", "sentence", "message", "content", "review", "query", "question", "utterance", "title", "prompt")


Texts = tuple[str, ...]


def read_inputs(
    arguments: Sequence[str], source: str | None, columns: Sequence[str], parts: Sequence[str]
) -> Iterator[Texts]:
    """The texts of each input, as many as `parts`, in order.

    Raises:
        click.UsageError: options that do not go together.
        InputError: a file cannot be read, is not UTF-8, or has no such columns; or a line has another number of texts.
    """
    if arguments and source:
        raise click.UsageError("Give TEXT or --input, not both.")
    if columns and (source is None or Path(source).suffix.lower() not in COLUMN_SUFFIXES):
        raise click.UsageError(f"--column goes with --input of a file with columns: {', '.join(COLUMN_SUFFIXES)}.")
    if columns and len(columns) != len(parts):
        raise click.UsageError(f"--column is given {len(columns)} times for {len(parts)}: {' and '.join(parts)}.")
    if arguments:
        yield from _split(arguments, "Argument", parts)
    elif source and source != "-":
        yield from _file_inputs(Path(source), columns, parts)
    elif source == "-" or not sys.stdin.isatty():
        yield from _stdin_inputs(parts)


def _split(lines: Iterable[str], what: str, parts: Sequence[str]) -> Iterator[Texts]:
    """The texts of each line, separated by tabs where there are several; a blank line is an input of blank texts."""
    for number, line in enumerate(lines, start=1):
        texts = (line,) if len(parts) == 1 else tuple(line.split("\t"))
        if len(texts) != len(parts):
            if line.strip():
                raise InputError(
                    f"{what} {number} holds {len(texts)} text(s): {line[:60]!r}.",
                    expected=f"{' and '.join(parts)}, separated by a tab",
                    action="use a csv, tsv or jsonl file where a text holds tabs",
                )
            texts = ("",) * len(parts)
        yield texts


def _file_inputs(path: Path, columns: Sequence[str], parts: Sequence[str]) -> Iterator[Texts]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _parsed(stream, path, columns, parts)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}.",
            expected="a file of texts: csv, tsv, jsonl or plain lines",
            action="check the path and its permissions",
        ) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(str(path), error) from error
    except csv.Error as error:
        raise InputError(
            f"{path} is no csv: {error}.", expected="rows by the CSV rules", action="write it again with a CSV library"
        ) from error


def _stdin_inputs(parts: Sequence[str]) -> Iterator[Texts]:
    try:
        yield from _split(_lines(sys.stdin), "Line", parts)
    except UnicodeDecodeError as error:
        raise _not_utf8("Standard input", error) from error


def _not_utf8(name: str, error: UnicodeDecodeError) -> InputError:
    return InputError(
        f"{name} is not UTF-8 ({error.reason}).",
        expected="text in UTF-8",
        action="convert it: iconv -f ENCODING -t utf-8",
    )


def _lines(stream: Iterable[str]) -> Iterator[str]:
    return (line.rstrip("\r\n") for line in stream)


def _parsed(stream: TextIO, path: Path, columns: Sequence[str], parts: Sequence[str]) -> Iterator[Texts]:
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv"}:
        yield from _csv_rows(stream, path, columns, parts, "\t" if suffix == ".tsv" else _delimiter(stream))
    elif suffix in {".jsonl", ".ndjson"}:
        yield from _json_lines(stream, path, columns, parts)
    else:
        yield from _split(_lines(stream), f"{path}, line", parts)


def _csv_rows(
    stream: TextIO, path: Path, columns: Sequence[str], parts: Sequence[str], delimiter: str
) -> Iterator[Texts]:
    before = csv.field_size_limit(2**31 - 1)  # a whole document may stand in one field
    try:
        rows = csv.DictReader(stream, delimiter=delimiter)
        if rows.fieldnames:
            names = _columns(list(rows.fieldnames), columns, parts, path)
            yield from (tuple(row[name] or "" for name in names) for row in rows)
    finally:
        csv.field_size_limit(before)


def _delimiter(stream: TextIO) -> str:
    """The delimiter that the header line holds most of; a comma where it holds none."""
    header = stream.readline()
    stream.seek(0)
    return max(",;\t|", key=header.count)


def _json_lines(stream: Iterable[str], path: Path, columns: Sequence[str], parts: Sequence[str]) -> Iterator[Texts]:
    example = json.dumps(dict.fromkeys(parts, "..."))
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is no JSON: {error.msg}.", expected=example) from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is no JSON object.", expected=example)
        values = [row.get(name) for name in _columns(list(row), columns, parts, path)]
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) < len(values):
            raise InputError(f"{path}, line {number} holds no string of text.", expected=example)
        yield texts


def _columns(there: list[str], named: Sequence[str], parts: Sequence[str], path: Path) -> list[str]:
    """The columns of the parts: those named; else those of the parts' own or of usual names."""
    missing = [name for name in named if name not in there]
    if named and not missing:
        return list(named)
    if not named:
        names = _guessed_columns(there, parts)
        if names:
            return names
    problem = f"has no column {missing[0]!r}" if missing else f"does not say which column holds the {_plural(parts)}"
    options = " ".join(f"--column {part.upper()}" for part in parts)
    raise InputError(
        f"{path} {problem}; its columns are {', '.join(there)}.",
        action="name one with --column" if len(parts) == 1 else f"name them: {options}",
    )


def _guessed_columns(there: list[str], parts: Sequence[str]) -> list[str]:
    """The columns of the parts by their names; empty where they cannot be told."""
    if len(parts) == 1:
        known = [name for name in there if name.lower() in TEXT_NAMES]
        return known[:1] or (there if len(there) == 1 else [])
    by_name = {name.lower(): name for name in there}
    if by_name.keys() >= {*parts}:
        return [by_name[part] for part in parts]
    return list(usual_pair(there) or ())


def _plural(parts: Sequence[str]) -> str:
    return "texts" if len(parts) == 1 else " and the ".join(parts)
