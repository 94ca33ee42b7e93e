"""Files of texts as `edgetune predict` reads them: by the readers of training (tune/data/), whatever wrote them.

What lies line by line (jsonl, plain text) in UTF-8 is read as it is answered, so that a million lines take no more
memory than a thousand; everything else is read whole, as training reads it. Needs the floor alone, and says what else a
file needs. Must not import torch, pandas, or datasets.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgetune.commands.text_columns import ColumnRequest, choose_text_columns, header_is_doubtful
from edgetune.serve.errors import DataError, InputError, MissingDependency
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.encoding import decode, encoding_finding
from edgetune.tune.data.foreign import HEAD_BYTES, refuse_foreign
from edgetune.tune.data.json_text import NotJson, json_value
from edgetune.tune.data.reading import SUFFIXES, Table, json_row, read_bytes, read_table, word

LINE_SUFFIXES = (".jsonl", ".ndjson")
DELIMITED_SUFFIXES = (".csv", ".tsv")
# Rows of a file of lines by which its columns are chosen.
SAMPLE_ROWS = 1000
_BLOCK_BYTES = 1 << 20

Texts = tuple[str, ...]
Say = Callable[[str], object]


@dataclass(frozen=True)
class FileOfTexts:
    """A file whose texts are asked for.

    Attributes:
        path: where it lies.
        options: how it is written, by the user's word.
        request: what is asked of its columns.
        say: what hears each sentence on how it was read.
    """

    path: Path
    options: FileOptions
    request: ColumnRequest
    say: Say

    def inputs(self) -> Iterator[Texts]:
        """The texts of each row, in order.

        Raises:
            InputError: it cannot be read, or its columns cannot be told.
            MissingDependency: it is of a kind that needs more than is installed.
        """
        with _as_input_errors(self.path):
            if self.path.suffix.lower() in LINE_SUFFIXES:
                yield from self._json_rows()
            else:
                table = self._table()
                names, sentence = choose_text_columns(table, self.request)
                self._refuse_doubtful_header(table)
                self._say_all(*table.findings, sentence)
                yield from zip(*(table.columns[name] for name in names), strict=True)

    def lines(self) -> Iterator[str]:
        """The lines of plain text, without their ends, as training reads a .txt file of texts; errors as `inputs`."""
        with _as_input_errors(self.path):
            yield from (line.removesuffix("\r") for line in self._lines())

    def _say_all(self, *sentences: str) -> None:
        for sentence in sentences:
            self.say(sentence)

    def _table(self) -> Table:
        """All rows; the header as the known columns show it where they do."""
        table = read_table(self.path, self.options)
        known = self.request.known
        if not self._guesses_header or not known:
            return table
        first = {cells[0].strip() for cells in table.columns.values()}
        if not table.header and first.issuperset(known):
            return self._read_again(header=True)
        if table.header and self._has_no_header(table):
            return self._read_again(header=False)
        return table

    @property
    def _guesses_header(self) -> bool:
        return is_delimited(self.path) and self.options.header is None

    def _has_no_header(self, table: Table) -> bool:
        """Whether the known columns have names as they are given where there is no header, and none of the file's."""
        made_up = all(re.fullmatch(r"column_\d+", name) for name in self.request.known)
        return made_up and not table.columns.keys() >= {*self.request.known}

    def _refuse_doubtful_header(self, table: Table) -> None:
        """Refuse a first line that may be a header or a row: its text would be lost without a word.

        Raises:
            InputError: nobody says which, and the names are none that are known.
        """
        if self._guesses_header and table.header and header_is_doubtful(table, self.request):
            raise InputError(
                f"{self.path}: the first line may name columns or be a row: {', '.join(table.columns)[:80]!r}.",
                expected="a header with a known name, such as text",
                action="say which: --header true or --header false",
            )

    def _read_again(self, *, header: bool) -> Table:
        return read_table(self.path, replace(self.options, header=header))

    def _json_rows(self) -> Iterator[Texts]:
        """The texts of one JSON object a line; the columns are chosen by the first rows."""
        rows = self._objects()
        sample = list(itertools.islice(rows, SAMPLE_ROWS))
        if not sample:
            return
        names = dict.fromkeys(name for row in sample for name in row)
        cells = {name: tuple(word(row.get(name)) for row in sample) for name in names}
        columns, sentence = choose_text_columns(Table(self.path.name, cells), self.request)
        self.say(sentence)
        for row in itertools.chain(sample, rows):
            yield tuple(_text(row.get(name)) for name in columns)

    def _objects(self) -> Iterator[dict[str, object]]:
        """An object a line; of texts alone, one a line, an object with each."""
        first: object = None
        for number, line in enumerate(self._lines(), start=1):
            if not line.strip():
                continue
            try:
                value = json_value(line)
            except NotJson as error:
                raise self._no_row(number, f"this is not JSON: {error.reason}") from error
            first = value if first is None else first
            row = json_row(value, like=first)
            if row is None:
                raise self._no_row(number, f"a {type(value).__name__} stands where a row was expected")
            yield row

    def _no_row(self, number: int, problem: str) -> InputError:
        return InputError(
            f"{self.path}, line {number}: {problem}.", expected='an object a line, such as {"text": "..."}'
        )

    def _lines(self) -> Iterator[str]:
        """Lines without their line feed: as they come where the whole file is UTF-8, else from the decoded whole."""
        if self.options.encoding is None and _is_plain_utf8(self.path):
            with self.path.open(encoding="utf-8-sig", newline="\n") as stream:
                yield from (line.removesuffix("\n") for line in stream)
            return
        decoded = decode(read_bytes(self.path), self.options.encoding, str(self.path))
        self._say_all(*encoding_finding(decoded, self.path.name))
        yield from decoded.text.removesuffix("\n").split("\n")


def has_columns(path: Path) -> bool:
    """Whether files of a suffix have columns; those of any unknown one are plain lines."""
    return path.suffix.lower() in SUFFIXES


def is_delimited(path: Path) -> bool:
    """Whether files of a suffix have delimiters, and perhaps no header."""
    return path.suffix.lower() in DELIMITED_SUFFIXES


def _text(value: object) -> str:
    """A cell as training reads it, but that half a character stays: a row with one is named and not answered."""
    return value if isinstance(value, str) else word(value)


def _is_plain_utf8(path: Path) -> bool:
    """Whether a file is UTF-8 without NUL throughout; a pipe, which can be read once, counts as one.

    Raises:
        DataError: its first bytes are those of no text.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as stream:
        refuse_foreign(stream.read(HEAD_BYTES), path)
        stream.seek(0)
        try:
            while block := stream.read(_BLOCK_BYTES):
                if b"\0" in block:
                    return False
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


@contextmanager
def _as_input_errors(path: Path) -> Iterator[None]:
    """Faults of training's readers, told to somebody who answers texts."""
    try:
        yield
    except DataError as error:
        expected = "a row of texts or more." if "class" in error.expected else error.expected
        raise InputError(error.found, expected=expected, action=_in_options(error.action)) from error
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"To read {path}, {error.name} is needed, which is not installed.",
            expected="a file in UTF-8: csv, tsv, json, jsonl or plain lines",
            action="convert the file, or pip install 'edgetune[build]'",
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 ({error.reason}).", action="name the encoding: --encoding ..."
        ) from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}.",
            expected="a file of texts: csv, tsv, json, jsonl, parquet or plain lines",
            action="check the path and its permissions",
        ) from error


def _in_options(action: str) -> str:
    """What to do, in options of `predict`: they have the names of the recipe's keys."""
    action = re.sub(r"--set data\.(encoding|delimiter|header)=", r"--\1 ", action)
    return action.replace("--set data.text=", "--column ")
