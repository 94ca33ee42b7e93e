"""One file of labelled rows, from bytes to a table of words: csv, tsv, json, jsonl and parquet.

Parquet files are read by the `datasets` library, in memory and through a cache that is removed afterwards; all others
by the standard library, so that `edgetune predict --input` reads them alike in an install that learns nothing. Arrow's
reader of JSON turns words that look like dates into dates, refuses a column of numbers and words, and names no line.
Must not import torch, pandas or datasets on import (1 s), nor for text files at all.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.data_urls import as_data_url
from edgetune.tune.data.dialect import FileOptions, detect_dialect
from edgetune.tune.data.encoding import Decoded, decode, encoding_finding
from edgetune.tune.data.foreign import HEAD_BYTES, refuse_foreign
from edgetune.tune.data.json_documents import read_document
from edgetune.tune.data.json_text import NotJson, json_value
from edgetune.tune.data.tagged_words import TAGGED_SUFFIXES, looks_tagged, read_tagged

if TYPE_CHECKING:
    from datasets import Dataset

NO_VALUE = r"\N"  # as MySQL and Hive write it
LONE_TEXTS = "text"  # the column of JSON that is a list of texts
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Table:
    """Rows as words, column by column; all columns have the same length.

    `header` is False where a delimited file names no columns; `encoding` is set where it had to be guessed; `folder` is
    the one that relative paths in cells start from, "" where there is none.
    """

    source: str
    columns: Mapping[str, tuple[str, ...]]
    header: bool = True
    encoding: str | None = None
    findings: tuple[str, ...] = ()
    folder: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def read_table(path: Path, options: FileOptions) -> Table:
    """Read the file `path`, whose suffix is one of `SUFFIXES`.

    Raises:
        DataError: the file is missing, unreadable, empty, of an unknown kind or damaged, or holds several parts.
    """
    tables = read_tables_of(path, options)
    if len(tables) > 1:
        raise DataError(
            f"{path} holds the parts {', '.join(tables)}.",
            expected="one list of rows.",
            action="write the part that is wanted as a file of its own.",
        )
    return tables["train"]


def read_tables_of(path: Path, options: FileOptions) -> dict[str, Table]:
    """As `read_table`, by part: one JSON document may hold several, any other file is all "train"."""
    content, suffix = read_bytes(path), path.suffix.lower()
    reader = _READERS.get(suffix)
    if suffix in TAGGED_SUFFIXES or (suffix not in _UNTAGGED and _is_tagged(content, path, options)):
        reader = _read_tagged
    if reader is None:
        raise DataError(
            f"{path} is of no kind that can be read: its suffix is {path.suffix or 'missing'!r}.",
            expected=f"a file of {', '.join(SUFFIXES)}, or a folder.",
            action="save the rows in one of these; a folder may hold one sub-folder of .txt files a class.",
        )
    tables = _read_json(content, path, options) if suffix == ".json" else {"train": reader(content, path, options)}
    for part, table in tables.items():
        if not len(table):
            where = f"The part {part} of {path}" if len(tables) > 1 else str(path)
            raise DataError(f"{where} has no rows.", expected="at least two rows of each class.")
    return {part: replace(table, folder=str(path.parent)) for part, table in tables.items()}


def read_bytes(path: Path) -> bytes:
    """The content of `path`, which must be neither empty nor packed."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"There is no file {path}.", expected="a file of rows, or a folder.", action="check the path."
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}.",
            expected="a file that this user may read.",
            action=f"check its permissions: ls -l {path}",
        ) from error
    if not content.strip():
        raise DataError(
            f"{path} is empty ({len(content)} bytes).",
            expected="rows of text.",
            action="check that what wrote it has finished.",
        )
    refuse_foreign(content[:HEAD_BYTES], path)
    return content


def datasets_library() -> ModuleType:
    """The `datasets` package, told to report to nobody."""
    import datasets

    library: ModuleType = datasets
    # Or each load of a local file sends a request to the hub's counter: 5 s of waiting without a network.
    library.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    return library


@contextmanager
def quiet_datasets() -> Iterator[ModuleType]:
    """The `datasets` package without progress bars and without its own account of errors that are raised."""
    library = datasets_library()
    bars, verbosity = not library.are_progress_bars_disabled(), library.logging.get_verbosity()
    library.disable_progress_bars()
    library.logging.set_verbosity(library.logging.CRITICAL)
    try:
        yield library
    finally:
        library.logging.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bars()


def table_of(dataset: Dataset, source: str) -> Table:
    """The columns of a `datasets.Dataset` with words, numbers or classes; others are left out, and said."""
    arrow = dataset.with_format("arrow")[:]
    columns: dict[str, tuple[str, ...]] = {}
    findings = []
    for name, feature in dataset.features.items():
        inner = getattr(feature, "feature", None)
        kind = type(feature).__name__
        if holds_pictures(feature):
            columns[name] = tuple(_picture_word(cell) for cell in arrow.column(name).to_pylist())
            continue
        if not (_holds_words(feature) or (kind in ("List", "LargeList") and _holds_words(inner, floats=False))):
            findings.append(f"Column {name!r} of {source} is of type {_type_words(feature)} and was left out.")
            continue
        values = arrow.column(name).to_pylist()
        if inner is not None:
            columns[name] = tuple(word(None if cells is None else list(_words_of(inner, cells))) for cells in values)
        else:
            columns[name] = tuple(_words_of(feature, values))
    return Table(source, columns, findings=tuple(findings))


def _holds_words(feature: Any, *, floats: bool = True) -> bool:
    """Whether cells of a type can be words: texts, numbers and classes, neither bytes nor vectors."""
    dtype = str(getattr(feature, "dtype", ""))
    if type(feature).__name__ == "ClassLabel":
        return True
    return (
        type(feature).__name__ == "Value" and not dtype.endswith("binary") and (floats or not dtype.startswith("float"))
    )


def holds_pictures(feature: Any) -> bool:
    """Whether cells of a type are pictures: the library's own type, or the bytes and path that it stores them as."""
    if isinstance(feature, Mapping):
        return set(feature) == {"bytes", "path"}
    return type(feature).__name__ == "Image"


def _picture_word(cell: Any) -> str:
    """A picture's path, or its bytes as a data URL; "" where there is none."""
    if not isinstance(cell, Mapping) or not (cell.get("bytes") or cell.get("path")):
        return ""
    return as_data_url(cell["bytes"]) if cell.get("bytes") else str(cell["path"])


def _type_words(feature: Any) -> str:
    """A type in words, such as "List of float32"."""
    inner = getattr(feature, "feature", None)
    if inner is not None:
        return f"{type(feature).__name__} of {_type_words(inner)}"
    return str(feature.dtype) if type(feature).__name__ == "Value" else type(feature).__name__


def word(value: object) -> str:
    """`value` as a word: nothing is "", whole floats lose their fraction, nested values become JSON."""
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\ufffd", value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _words_of(feature: Any, values: Sequence[Any]) -> Iterator[str]:
    """The words of cells; of class numbers their names, of -1, by which the hub's data sets hide a label, none."""
    for value in values:
        if type(feature).__name__ != "ClassLabel":
            yield word(value)
        else:
            yield "" if value is None or value < 0 else str(feature.names[value])


def _read_csv(content: bytes, path: Path, options: FileOptions) -> Table:
    return _read_delimited(content, path, options, preferred=",")


def _read_tsv(content: bytes, path: Path, options: FileOptions) -> Table:
    return _read_delimited(content, path, options, preferred="\t")


def _read_delimited(content: bytes, path: Path, options: FileOptions, *, preferred: str) -> Table:
    decoded = _decode(content, path, options)
    text = decoded.text.replace("\0", "")
    dialect = detect_dialect(text, options, name=path.name, preferred=preferred)
    columns = dict(zip(dialect.names, zip(*(row.cells for row in dialect.rows), strict=True), strict=True))
    findings = [*encoding_finding(decoded, path.name), *dialect.findings]
    for name, cells in columns.items():
        if blank := cells.count(NO_VALUE):
            columns[name] = tuple("" if cell == NO_VALUE else cell for cell in cells)
            findings.append(f"No value ({NO_VALUE}) in {counted(blank, 'cell')} of column {name!r} of {path.name}.")
    return Table(path.name, columns, dialect.header, decoded.guessed, tuple(findings))


def is_tagged(path: Path, options: FileOptions) -> bool:
    """Whether a file holds a word and its tag a line."""
    return _is_tagged(read_bytes(path), path, options)


def _is_tagged(content: bytes, path: Path, options: FileOptions) -> bool:
    """Whether a file of another suffix holds a word and its tag a line."""
    try:
        return looks_tagged(_decode(content, path, options).text)
    except DataError:
        return False


def _read_tagged(content: bytes, path: Path, options: FileOptions) -> Table:
    decoded = _decode(content, path, options)
    columns, notes = read_tagged(decoded.text, path)
    return Table(path.name, columns, True, decoded.guessed, (*encoding_finding(decoded, path.name), *notes))


def _decode(content: bytes, path: Path, options: FileOptions) -> Decoded:
    return decode(content, options.encoding, str(path), likely=options.likely_encoding)


def _read_parquet(content: bytes, path: Path, options: FileOptions) -> Table:
    return table_of(_load("parquet", content, {}, path), path.name)


def _load(builder: str, content: bytes, options: dict[str, object], path: Path) -> Any:
    """Read `content` with a builder of `datasets`, from a copy: a `[` in a path is a pattern to it."""
    import pyarrow

    with quiet_datasets() as library, tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
        copy = Path(folder) / f"rows.{builder}"
        copy.write_bytes(content)
        try:
            return library.load_dataset(
                builder,
                data_files=str(copy),
                split="train",
                cache_dir=str(Path(folder) / "cache"),
                keep_in_memory=True,
                **options,
            )
        except (pyarrow.ArrowException, library.exceptions.DatasetsError, OSError) as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise DataError(
                f"{path} cannot be read as {builder}: {reason.rstrip('.')}.",
                expected=f"a whole {builder} file.",
                action="write it again, or check that its copy is complete.",
            ) from error


def _read_json(content: bytes, path: Path, options: FileOptions) -> dict[str, Table]:
    decoded = _decode(content, path, options)
    try:
        value = json_value(decoded.text)
    except NotJson as error:
        if not decoded.text.lstrip().startswith("{"):
            raise _not_json(path, error.line, error.reason) from error
        return {"train": _read_jsonl(content, path, options)}
    document = read_document(value)
    if document is None:
        raise _not_json(path, 1, f"a {type(value).__name__}, where a list of objects was expected")
    layout = (f"{path.name} holds {document.layout}.",) if document.layout else ()
    several = len(document.parts) > 1
    tables = {}
    for part, rows in document.parts.items():
        source = f"{path.name} ({part})" if several else path.name
        table = _table_of_objects(rows, [f"{source}, row {n}" for n in range(1, len(rows) + 1)], decoded)
        tables[part] = replace(table, findings=(*table.findings, *layout))
        layout, decoded = (), Decoded("")
    return tables


def _read_jsonl(content: bytes, path: Path, options: FileOptions) -> Table:
    decoded = _decode(content, path, options)
    objects, places = [], []
    for number, line in enumerate(decoded.text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            objects.append(json_value(line))
        except NotJson as error:
            raise _not_json(path, number, error.reason) from error
        places.append(f"{path.name}, line {number}")
    return _table_of_objects(objects, places, decoded)


def json_row(value: object, like: object) -> dict[str, object] | None:
    """A row as JSON has it: an object, or where the first row is `like` that a text alone, the column `LONE_TEXTS`.

    None where it is neither, or of the other kind than the first.
    """
    if isinstance(like, str):
        return {LONE_TEXTS: value} if isinstance(value, str) else None
    return value if isinstance(value, dict) else None


def _table_of_objects(objects: Sequence[object], places: Sequence[str], decoded: Decoded) -> Table:
    """One row an object; `places` says of each where it stands. A key that a row lacks is an empty cell."""
    names: dict[str, None] = {}
    rows: list[dict[str, object]] = []
    for written, place in zip(objects, places, strict=True):
        row = json_row(written, like=objects[0])
        if row is None:
            raise DataError(
                f"{place}: a {type(written).__name__} stands where a row was expected.",
                expected='an object a row, such as {"text": "where is my card", "label": "card_arrival"}.',
                action="mend that row.",
            )
        rows.append(row)
        names.update(dict.fromkeys(row))
    source = places[0].rpartition(", ")[0] if places else ""
    columns = {name: tuple(word(row.get(name)) for row in rows) for name in names}
    return Table(source, columns, True, decoded.guessed, encoding_finding(decoded, source))


def _not_json(path: Path, line: int, reason: str) -> DataError:
    return DataError(
        f"{path}, line {line}: this is not JSON rows: {reason}.",
        expected="a list of objects (.json), or one object a line (.jsonl).",
        action="mend that line.",
    )


_READERS: dict[str, Callable[[bytes, Path, FileOptions], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_jsonl,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
_UNTAGGED = set(_READERS) - {".tsv"}
SUFFIXES = (*_READERS, *TAGGED_SUFFIXES)
# By their first bytes, what they are and what to do.
