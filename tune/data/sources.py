"""What a name in a recipe stands for: a file, a folder of one of six layouts, or a data set on the hub.

Stands apart from reading, which knows one file: here whole parts (train, validation, test) come together. Must not
import torch, pandas or datasets for text files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgetune.serve.errors import DataError
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.encoding import decode_all, encoding_findings
from edgetune.tune.data.json_documents import PART_NAMES, part_of
from edgetune.tune.data.picture_folders import metadata_of, picture_classes, read_picture_classes
from edgetune.tune.data.reading import (
    SUFFIXES,
    Table,
    is_tagged,
    read_bytes,
    read_table,
    read_tables_of,
    table_of,
)
from edgetune.tune.data.saved_sets import open_from_hub, open_saved

# As the hub and `datasets` name the pieces of a part: train-00000-of-00002.parquet.
SHARD = re.compile(r"(?P<part>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Tables:
    """The parts of a data set as they were read; a part that nobody gave is None."""

    train: Table
    validation: Table | None = None
    test: Table | None = None


@dataclass(frozen=True)
class Named:
    """The sources that a recipe names: one for all or for training, and perhaps one for each other part."""

    train: str
    validation: str | None = None
    test: str | None = None


def read_parts(named: Named, options: FileOptions) -> Tables:
    """Read all that is named. A part named on its own goes before one that lies in the training source.

    Raises:
        DataError: a source is missing, unreadable, damaged or of an unknown layout.
    """
    tables = read_source(named.train, options)
    options = _following(tables.train, options)
    validation = tables.validation if named.validation is None else _part(named.validation, "validation", options)
    test = tables.test if named.test is None else _part(named.test, "test", options)
    return Tables(tables.train, validation, test)


def _part(name: str, part: str, options: FileOptions) -> Table:
    """The part of that name in the source `name`, else its training part, which is all that a file has."""
    tables = read_source(name, options, part=part)
    inside: Table | None = getattr(tables, part)
    return tables.train if inside is None else inside


def read_source(name: str, options: FileOptions, *, part: str = "train") -> Tables:
    """Read one source; `part` is the part that stands for a folder without a training part."""
    path = Path(name).expanduser()
    if path.is_dir():
        return _read_folder(path, options, part)
    if path.exists() or path.suffix.lower() in SUFFIXES or not HUB_ID.fullmatch(name):
        return _tables(read_tables_of(path, options), str(path), part)
    return _read_hub(name)


def _read_folder(folder: Path, options: FileOptions, alone: str) -> Tables:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _from_library(open_saved(folder), str(folder), alone)
    files = part_files(folder, SUFFIXES)
    if files:
        return _tables(_read_files(files, options), str(folder), alone)
    if tagged := _tagged_texts(folder, options):
        return _tables(_read_files(tagged, options), str(folder), alone)
    if (table := _labelled_folder(folder, options)) is not None:
        return Tables(table)
    nested = _by_part([path for path in _visible(folder) if _is_labelled(path)], folder)
    if nested:
        read = {part: _labelled_folder(path, options) for part, (path,) in nested.items()}
        return _tables({part: table for part, table in read.items() if table is not None}, str(folder), alone)
    raise DataError(
        f"The folder {folder} has none of the layouts that can be read: it holds {_sight(folder)}.",
        expected="files train, validation and test (.csv, .tsv, .json, .jsonl, .parquet or .conll), here or in a "
        "folder data, one sub-folder of .txt files or of pictures a class, or what datasets' save_to_disk wrote.",
        action="name the file instead of its folder, or each part with --set data.train=...",
    )


def _tagged_texts(folder: Path, options: FileOptions) -> dict[str, tuple[Path, ...]]:
    """The .txt files of a folder that are named as parts, where each holds a word and its tag a line."""
    files = _parts_in(folder, (".txt",)) if not _class_folders(folder) else {}
    return files if files and all(is_tagged(path, options) for paths in files.values() for path in paths) else {}


def _read_files(files: Mapping[str, Sequence[Path]], options: FileOptions) -> dict[str, Table]:
    parts: dict[str, Table] = {}
    for part in (part for part in PART_NAMES if part in files):
        pieces = []
        for path in files[part]:
            pieces.append(read_table(path, options))
            options = _following(pieces[0], options)
        parts[part] = _joined(pieces, f"{files[part][0].parent.name}/{part}")
    return parts


def _joined(tables: Sequence[Table], source: str) -> Table:
    """The rows of several tables; a column that one lacks is empty there."""
    if len(tables) == 1:
        return tables[0]
    names = dict.fromkeys(name for table in tables for name in table.columns)
    columns = {
        name: tuple(cell for table in tables for cell in table.columns.get(name, ("",) * len(table))) for name in names
    }
    findings = tuple(dict.fromkeys(finding for table in tables for finding in table.findings))
    return replace(tables[0], source=f"{source} ({len(tables)} files)", columns=columns, findings=findings)


def _following(table: Table, options: FileOptions) -> FileOptions:
    """A few rows of a test file tell little: what the first file showed of header and encoding holds for the others."""
    header = table.header if options.header is None else options.header
    return replace(options, header=header, likely_encoding=table.encoding or options.likely_encoding)


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _sight(folder: Path) -> str:
    names = [path.name + "/" * path.is_dir() for path in _visible(folder)]
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "nothing") + more


def part_files(folder: Path, suffixes: Collection[str]) -> dict[str, tuple[Path, ...]]:
    """The files that are named as a part is, by part, each part whole or in pieces: in `folder`, else in its sub-folder
    `data`, as a clone from the hub has them, else in its only sub-folder that has any. A sub-folder that is named as a
    part holds its pieces.

    Raises:
        DataError: two files are the same part, pieces are missing, or several sub-folders have parts.
    """
    for place in (folder, folder / "data"):
        if files := _parts_in(place, suffixes):
            return files
    inner = {path: files for path in _visible(folder) if (files := _parts_in(path, suffixes))}
    if len(inner) > 1:
        raise DataError(
            f"{folder} has {len(inner)} folders with parts: {', '.join(path.name for path in inner)}.",
            expected="one data set.",
            action=f"name one of them: {next(iter(inner))}",
        )
    return next(iter(inner.values()), {})


def _parts_in(folder: Path, suffixes: Collection[str]) -> dict[str, tuple[Path, ...]]:
    """The parts that `folder` itself holds, as files or as sub-folders of pieces."""
    if files := _by_part(_files(folder, suffixes), folder):
        return files
    tables = [suffix for suffix in suffixes if suffix != ".txt"]  # of a text a file, the folder may be a class
    folders = {path: pieces for path in _visible(folder) if (pieces := _files(path, tables)) and part_of(path.stem)}
    return {part: tuple(folders[path]) for part, (path,) in _by_part(list(folders), folder).items()}


def _files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() in suffixes and path.is_file()]


def _by_part(paths: Sequence[Path], folder: Path) -> dict[str, tuple[Path, ...]]:
    """Those of `paths` that are named as a part is, by part, pieces in their order."""
    by_part: dict[str, list[Path]] = {}
    for path in paths:
        shard = SHARD.fullmatch(path.stem)
        # CoNLL's files say more of themselves: train.char.bmes.
        part = part_of(shard["part"] if shard else path.stem) or part_of(path.name.partition(".")[0])
        if part is not None:
            by_part.setdefault(part, []).append(path)
    for part, pieces in by_part.items():
        shards = [SHARD.fullmatch(path.stem) for path in pieces]
        numbers = [int(shard["number"]) for shard in shards if shard]
        if len(numbers) < len(pieces) > 1:
            raise DataError(
                f"{folder} has two files for the {part} part: {pieces[0].name} and {pieces[1].name}.",
                expected="one file a part.",
                action="name the right one: --set data.train=... --set data.test=...",
            )
        if numbers and numbers != list(range(int(shards[0]["count"]) if shards[0] else 0)):
            raise DataError(
                f"{folder} has {len(numbers)} files of the {part} part, the first of which is {pieces[0].name}.",
                expected="all its pieces, each once.",
                action="fetch those that are missing; in a clone from the hub: git lfs pull",
            )
    return {part: tuple(pieces) for part, pieces in by_part.items()}


def _tables(parts: Mapping[str, Table], source: str, alone: str) -> Tables:
    train = parts.get("train", parts.get(alone))
    if train is None:
        raise DataError(
            f"{source} has no training part: it has {', '.join(parts)}.",
            expected="a part named train.",
            action="rename it, or name the file with --set data.train=...",
        )
    return Tables(train, parts.get("validation"), parts.get("test"))


def _is_labelled(folder: Path) -> bool:
    return bool(_class_folders(folder) or (folder.is_dir() and (metadata_of(folder) or picture_classes(folder))))


def _labelled_folder(folder: Path, options: FileOptions) -> Table | None:
    """The rows of a folder with a sub-folder a class, or with a table of its pictures; None of any other."""
    if classes := _class_folders(folder):
        return _read_classes(folder, classes, options)
    if (metadata := metadata_of(folder)) is not None:
        return read_table(metadata, options)
    pictures = picture_classes(folder)
    return read_picture_classes(folder, pictures) if pictures else None


def _class_folders(folder: Path) -> list[Path]:
    """The sub-folders of `folder` that hold .txt files: each is a class."""
    return [path for path in _visible(folder) if path.is_dir() and any(path.glob("*.txt"))]


def _read_classes(folder: Path, classes: list[Path], options: FileOptions) -> Table:
    """One row a .txt file; an empty file is a row without text, which cleaning drops and counts."""
    paths = [path for sub in classes for path in sorted(sub.glob("*.txt"))]
    contents = [read_bytes(path) if path.stat().st_size else b"" for path in paths]
    decoded = decode_all(contents, options.encoding, [str(path) for path in paths], likely=options.likely_encoding)
    texts = tuple(file.text.replace("\r\n", "\n") for file in decoded)
    labels = tuple(path.parent.name for path in paths)
    return Table(folder.name, {"text": texts, "label": labels}, findings=encoding_findings(decoded))


def _read_hub(name: str) -> Tables:
    return _from_library(open_from_hub(name), name, "train")


def _from_library(loaded: Any, source: str, alone: str) -> Tables:
    """The tables of a `datasets.Dataset` or `DatasetDict`."""
    if not isinstance(loaded, dict):
        return Tables(table_of(loaded, source))
    parts: dict[str, Table] = {}
    for split in loaded:
        if (part := part_of(split)) is not None:
            parts.setdefault(part, table_of(loaded[split], f"{source} ({split})"))
    return _tables(parts, source, alone)
