"""Texts as commands take them: arguments, a file (csv, tsv, jsonl or plain lines), or standard input. Floor only."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

import click

from edgetune.serve.errors import InputError

COLUMN_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
TEXT_NAMES = ("text", "sentence", "message", "content", "review", "query", "question", "utterance", "title", "prompt")


def read_texts(texts: tuple[str, ...], source: str | None, column: str | None) -> Iterator[str]:
    """The texts in order.

    Raises:
        click.UsageError: options that do not go together.
        InputError: a file cannot be read, is not UTF-8, or has no such column.
    """
    if texts and source:
        raise click.UsageError("Give TEXT or --input, not both.")
    if column and (source is None or Path(source).suffix.lower() not in COLUMN_SUFFIXES):
        raise click.UsageError(f"--column goes with --input of a file with columns: {', '.join(COLUMN_SUFFIXES)}.")
    if texts:
        yield from texts
    elif source and source != "-":
        yield from _file_texts(Path(source), column)
    elif source == "-" or not sys.stdin.isatty():
        yield from _stdin_texts()


def _file_texts(path: Path, column: str | None) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _parsed(stream, path, column)
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


def _stdin_texts() -> Iterator[str]:
    try:
        yield from _lines(sys.stdin)
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


def _parsed(stream: TextIO, path: Path, column: str | None) -> Iterator[str]:
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv"}:
        yield from _csv_rows(stream, path, column, "\t" if suffix == ".tsv" else _delimiter(stream))
    elif suffix in {".jsonl", ".ndjson"}:
        yield from _json_lines(stream, path, column)
    else:
        yield from _lines(stream)


def _csv_rows(stream: TextIO, path: Path, column: str | None, delimiter: str) -> Iterator[str]:
    before = csv.field_size_limit(2**31 - 1)  # a whole document may stand in one field
    try:
        rows = csv.DictReader(stream, delimiter=delimiter)
        if rows.fieldnames:
            name = _column(list(rows.fieldnames), column, path)
            yield from (row[name] or "" for row in rows)
    finally:
        csv.field_size_limit(before)


def _delimiter(stream: TextIO) -> str:
    """The delimiter that the header line holds most of; a comma where it holds none."""
    header = stream.readline()
    stream.seek(0)
    return max(",;\t|", key=header.count)


def _json_lines(stream: Iterable[str], path: Path, column: str | None) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is no JSON: {error.msg}.", expected='{"text": "..."}') from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is no JSON object.", expected='{"text": "..."}')
        value = row.get(_column(list(row), column, path))
        if not isinstance(value, str):
            raise InputError(f"{path}, line {number} holds no string of text.", expected='{"text": "..."}')
        yield value


def _column(columns: list[str], wanted: str | None, path: Path) -> str:
    if wanted in columns:
        return wanted
    known = [name for name in columns if name.lower() in TEXT_NAMES]
    if wanted is None and (len(columns) == 1 or known):
        return known[0] if known else columns[0]
    said = f"has no column {wanted!r}" if wanted else "does not say which column holds the texts"
    raise InputError(f"{path} {said}; its columns are {', '.join(columns)}.", action="name one with --column")
