"""Rows as files hold them, lists and objects inside cells included, each with the place that it stands at.

Stands apart from `tune/data/reading.py`, whose tables hold words alone and forget the lines they came from. Encodings,
delimited files and the `datasets` library are read through it. Must not import torch or transformers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.encoding import decode, decode_all, encoding_finding, encoding_findings
from edgetune.tune.data.json_documents import Document, read_document
from edgetune.tune.data.json_text import NotJson, json_value
from edgetune.tune.data.reading import read_bytes, read_table
from edgetune.tune.stepwise.faults import Fault, faults_error, kind_of
from edgetune.tune.stepwise.formats.format import CHAT_COLUMNS
from edgetune.tune.stepwise.marked_text import marked_chats

TEXT_BORDER = "<|endoftext|>"


@dataclass(frozen=True)
class RawRow:
    """The cells of a row by column, and where it stands, such as "chats.jsonl, line 7".

    `fault` says why the row could not be read, in which case it has no cells: such rows are told together with those
    of another format, so that a file is mended in one go.
    """

    place: str
    values: Mapping[str, Any]
    fault: str = ""


@dataclass(frozen=True)
class RawRows:
    """The rows of one source and what there is to say about how they were read."""

    source: str
    rows: tuple[RawRow, ...]
    findings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)


def read_rows(path: Path, options: FileOptions) -> RawRows:
    """Read the file `path`, whose suffix is one of `ROW_SUFFIXES`.

    Raises:
        DataError: the file is missing, unreadable, empty, of an unknown kind or damaged.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} is of no kind that can be read: its suffix is {path.suffix or 'missing'!r}.",
            expected=f"a file of {', '.join(ROW_SUFFIXES)}, or a folder.",
            action="save the rows in one of these; .jsonl holds every format.",
        )
    rows = reader(path, options)
    if not len(rows):
        raise DataError(f"{path} has no rows.", expected="texts or chats, one a row.")
    return rows


def raw_rows_of(objects: Sequence[Mapping[str, object]], source: str, findings: tuple[str, ...] = ()) -> RawRows:
    """Rows that are counted from 1."""
    rows = tuple(RawRow(f"{source}, row {number}", one) for number, one in enumerate(objects, start=1))
    return RawRows(source, rows, findings)


def texts_of_file(path: Path, options: FileOptions) -> RawRows:
    """The texts of a .txt file: what stands between lines of `<|endoftext|>`, chats of marked lines, else its lines."""
    decoded = decode(read_bytes(path), options.encoding, str(path))
    text = decoded.text.replace("\r\n", "\n")
    said_of = encoding_finding(decoded, path.name)
    if TEXT_BORDER in text:
        pieces = [piece.strip("\n") for piece in text.split(TEXT_BORDER)]
        said_of = (*said_of, f"The texts of {path.name} are separated by {TEXT_BORDER}.")
        return raw_rows_of([{"text": piece} for piece in pieces if piece.strip()], path.name, said_of)
    if (marked := marked_chats(text, path.name)) is not None:
        rows = tuple(RawRow(f"{path.name}, line {number}", {"text": chat}) for number, chat in marked.chats)
        return RawRows(path.name, rows, (*said_of, marked.finding))
    # Not splitlines, which also splits at separators that stand inside texts, such as U+2028.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    rows = tuple(RawRow(f"{path.name}, line {number}", {"text": line}) for number, line in lines)
    return RawRows(path.name, rows, (*said_of, f"Each line of {path.name} is a text."))


def text_of_folder(folder: Path, files: Sequence[Path], options: FileOptions) -> RawRows:
    """One text a file; an empty file is a row without text, which is dropped and counted later."""
    contents = [read_bytes(path) if path.stat().st_size else b"" for path in files]
    decoded = decode_all(contents, options.encoding, [str(path) for path in files], likely=options.likely_encoding)
    rows = tuple(
        RawRow(f"{folder.name}/{path.name}", {"text": file.text.replace("\r\n", "\n")})
        for path, file in zip(files, decoded, strict=True)
    )
    noun = counted(len(files), ".txt file")
    return RawRows(folder.name, rows, (f"Each of the {noun} in {folder.name} is a text.", *encoding_findings(decoded)))


def _read_table(path: Path, options: FileOptions) -> RawRows:
    table = read_table(path, options)
    names = list(table.columns)
    objects = [dict(zip(names, cells, strict=True)) for cells in zip(*table.columns.values(), strict=True)]
    return raw_rows_of(objects, path.name, table.findings)


def _read_parquet(path: Path, options: FileOptions) -> RawRows:
    import pyarrow
    import pyarrow.parquet

    try:
        objects = pyarrow.parquet.read_table(io.BytesIO(read_bytes(path))).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path} cannot be read as parquet: {reason.rstrip('.')}.",
            expected="a whole parquet file.",
            action="write it again, or check that its copy is complete.",
        ) from error
    return raw_rows_of(objects, path.name)


def _read_json(path: Path, options: FileOptions) -> RawRows:
    decoded = decode(read_bytes(path), options.encoding, str(path))
    try:
        document = json_value(decoded.text)
    except NotJson as error:
        if not decoded.text.lstrip().startswith("{"):
            raise _no_rows(path, [RawRow(f"{path.name}, line {error.line}", {}, error.reason)]) from error
        return _read_jsonl(path, options)
    if isinstance(document, dict) and any(_are_turns(name, value) for name, value in document.items()):
        document = [document]  # a lone row, such as {"messages": [...]}
    found: Document | None
    if isinstance(document, list) and any(isinstance(row, list) for row in document):
        found = Document({"train": document})  # rows that are their turns alone
    else:
        found = read_document(document)
    if found is None:
        raise _no_rows(path, [_row_of(f"{path.name}, line 1", document)])
    if len(found.parts) > 1:
        raise DataError(
            f"{path} holds {found.layout}.",
            expected="one list of rows.",
            action="write each part as a file of its own: --set data.train=... --set data.test=...",
        )
    rows = [_row_of(f"{path.name}, row {number}", one) for number, one in enumerate(found.parts["train"], start=1)]
    return _some_readable(path, rows, encoding_finding(decoded, path.name))


def _are_turns(name: str, values: object) -> bool:
    """Whether the list under a name is one chat and not a list of rows: its turns say who speaks, or are pairs."""
    if not isinstance(values, list) or not values:
        return False
    return all(
        isinstance(one, dict) and ({"role", "from"} & set(one) or (name.casefold() in CHAT_COLUMNS and _is_flat(one)))
        for one in values
    )


def _is_flat(values: Mapping[str, object]) -> bool:
    return not any(isinstance(value, list | dict) for value in values.values())


def _read_jsonl(path: Path, options: FileOptions) -> RawRows:
    decoded = decode(read_bytes(path), options.encoding, str(path))
    rows = []
    for number, line in enumerate(decoded.text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        try:
            rows.append(_row_of(place, json_value(line)))
        except NotJson as error:
            rows.append(RawRow(place, {}, f"this is no JSON: {error.reason}"))
    return _some_readable(path, rows, encoding_finding(decoded, path.name))


def _row_of(place: str, value: object) -> RawRow:
    if isinstance(value, dict):
        return RawRow(place, value)
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return RawRow(place, {"conversations": value})  # a chat that stands there without a name
    return RawRow(place, {}, f"{kind_of(value)} stands here, where an object was expected")


def _some_readable(path: Path, rows: Sequence[RawRow], findings: tuple[str, ...]) -> RawRows:
    """The rows of a file, some of which may be damaged, but not all."""
    if rows and all(row.fault for row in rows):
        raise _no_rows(path, rows)
    return RawRows(path.name, tuple(rows), findings)


def _no_rows(path: Path, rows: Sequence[RawRow]) -> DataError:
    return faults_error(
        [Fault(row.place, f"{row.fault}.") for row in rows],
        f"{path} is not JSON rows: {counted(len(rows), 'fault')}.",
        expected="a list of objects (.json), or one object a line (.jsonl).",
        action="mend these lines.",
    )


_READERS: dict[str, Callable[[Path, FileOptions], RawRows]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".txt": texts_of_file,
}
ROW_SUFFIXES = tuple(_READERS)
