"""Inputs as commands take them: arguments, a file (text_files.py), or lines on standard input. Floor only.

An input is one text, or several parts (`parts` names them): then they are columns of a file, and on a line or in an
argument they are separated by a tab.
"""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from edgetune.commands.text_columns import ColumnRequest, may_name_columns
from edgetune.commands.text_files import FileOfTexts, Texts, has_columns, is_delimited
from edgetune.escaping import escaped
from edgetune.serve.errors import InputError
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.json_text import NotJson, json_value
from edgetune.tune.data.reading import SUFFIXES


@dataclass(frozen=True)
class Source:
    """Where inputs come from.

    Attributes:
        arguments: texts of the command line.
        file: a path, "-" for standard input, or None.
        options: how the file is written, by the user's word.
        request: what is asked of its columns.
    """

    arguments: Sequence[str]
    file: str | None
    options: FileOptions
    request: ColumnRequest

    def inputs(self) -> Iterator[Texts]:
        """The texts of each input, as many as there are parts, in order.

        Raises:
            click.UsageError: options that do not go together.
            InputError: a file cannot be read or has no such columns; or a line has another number of texts.
        """
        parts = self.request.parts
        self._check_options()
        if self.arguments:
            return _split(self.arguments, "Argument", parts)
        if self.file and self.file != "-":
            path = Path(self.file)
            file = FileOfTexts(
                path, self.options, self.request, lambda sentence: click.echo(escaped(sentence), err=True)
            )
            if has_columns(path):
                return file.inputs()
            return _split(self._noting_rows(file.lines(), path.name), f"{path}, line", parts)
        if self.file == "-" or not sys.stdin.isatty():
            return _split(self._noting_rows(_stdin_lines(self.options.encoding), "standard input"), "Line", parts)
        return iter(())

    def _noting_rows(self, lines: Iterable[str], name: str) -> Iterator[str]:
        """The lines; where they begin as rows do, stderr is told that they are answered as they stand."""
        for number, line in enumerate(lines):
            if number == 0 and (kind := self._kind_of_rows(line)):
                sentence = f"The lines of {escaped(name)} are answered as texts, and the first is {kind}: such rows are"
                click.echo(f"{sentence} read from a file with that suffix, --input FILE.jsonl or FILE.csv.", err=True)
            yield line

    def _kind_of_rows(self, line: str) -> str:
        """What a first line would be in a file of rows; "" for a text."""
        if _is_json(line):
            return "JSON"
        return "a header" if may_name_columns(line, self.request) else ""

    def _check_options(self) -> None:
        named, parts = self.request.named, self.request.parts
        path = Path(self.file) if self.file and self.file != "-" else None
        if self.arguments and self.file:
            raise click.UsageError("Give TEXT or --input, not both.")
        if named and (path is None or not has_columns(path)):
            raise click.UsageError(f"--column goes with --input of a file with columns: {', '.join(SUFFIXES)}.")
        if named and len(named) != len(parts):
            raise click.UsageError(f"--column is given {len(named)} times for {len(parts)}: {' and '.join(parts)}.")
        if self.arguments and self.options.encoding:
            raise click.UsageError("--encoding goes with --input.")
        if (self.options.delimiter or self.options.header is not None) and not (path and is_delimited(path)):
            raise click.UsageError("--delimiter and --header go with --input of a csv or tsv file.")


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


def _is_json(line: str) -> bool:
    """Whether a line is an object or list of JSON, or the beginning of one over several lines."""
    if line.strip() in ("[", "{"):
        return True
    try:
        return isinstance(json_value(line), (dict, list))
    except NotJson:
        return False


def _stdin_lines(encoding: str | None) -> Iterator[str]:
    """The lines of standard input, as they come; UTF-8 unless they are said to be, or marked as, something else.

    Raises:
        InputError: a line is not of the encoding.
    """
    stream = sys.stdin.buffer
    marked = isinstance(stream, io.BufferedReader) and stream.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if marked and encoding is None:
        encoding = "utf-16"
    # Line by line where lines end with a byte of their own, so that a bad one is named by its number.
    lines = io.TextIOWrapper(stream, encoding, newline="\n") if encoding else map(bytes.decode, stream)
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            text = line if number > 1 else line.removeprefix("\ufeff")
            yield text.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InputError(
            f"Standard input, line {number + 1}, is not {encoding or 'UTF-8'} ({error.reason}).",
            expected=f"text in {encoding or 'UTF-8'}",
            action="name its encoding: --encoding NAME, or convert it: iconv -f ENCODING -t utf-8",
        ) from error
