"""What a name in a recipe stands for: a file, a folder of one of five layouts, or a data set on the hub.

Stands apart from reading, which knows one file: here whole parts (train, validation, test) come together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgetune.serve.errors import DataError
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.encoding import decode
from edgetune.tune.data.reading import (
    SUFFIXES,
    Table,
    read_bytes,
    read_table,
    table_of,
)
from edgetune.tune.data.saved_sets import open_from_hub, open_saved

PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
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
        return Tables(read_table(path, options))
    return _read_hub(name)


def _read_folder(folder: Path, options: FileOptions, alone: str) -> Tables:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _from_library(open_saved(folder), str(folder), alone)
    files = part_paths([path for path in _visible(folder) if path.suffix.lower() in SUFFIXES], folder)
    if files:
        return _tables(_read_files(files, options), str(folder), alone)
    if classes := _class_folders(folder):
        return Tables(_read_classes(folder, classes, options))
    nested = part_paths([path for path in _visible(folder) if _class_folders(path)], folder)
    if nested:
        tables = {part: _read_classes(path, _class_folders(path), options) for part, path in nested.items()}
        return _tables(tables, str(folder), alone)
    raise DataError(
        f"The folder {folder} has none of the layouts that can be read: it holds {_sight(folder)}.",
        expected="files train, validation and test (.csv, .tsv, .json, .jsonl or .parquet), one sub-folder "
        "of .txt files a class, or what datasets' save_to_disk wrote.",
        action="name the file instead of its folder, or each part with --set data.train=...",
    )


def _read_files(files: Mapping[str, Path], options: FileOptions) -> dict[str, Table]:
    parts: dict[str, Table] = {}
    for part in (part for part in PART_NAMES if part in files):
        parts[part] = read_table(files[part], options)
        options = _following(parts[part], options)
    return parts


def _following(table: Table, options: FileOptions) -> FileOptions:
    """A few rows of a test file tell little of a header: what the first file showed holds for the others."""
    return replace(options, header=table.header) if options.header is None else options


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _sight(folder: Path) -> str:
    names = [path.name + "/" * path.is_dir() for path in _visible(folder)]
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "nothing") + more


def part_paths(paths: list[Path], folder: Path) -> dict[str, Path]:
    """Those of `paths` that are named as a part is, by part."""
    by_part: dict[str, Path] = {}
    for path in paths:
        part = next((part for part, names in PART_NAMES.items() if path.stem.lower() in names), None)
        if part is None:
            continue
        if part in by_part:
            raise DataError(
                f"{folder} has two files for the {part} part: {by_part[part].name} and {path.name}.",
                expected="one file a part.",
                action="name the right one: --set data.train=... --set data.test=...",
            )
        by_part[part] = path
    return by_part


def _tables(parts: Mapping[str, Table], source: str, alone: str) -> Tables:
    train = parts.get("train", parts.get(alone))
    if train is None:
        raise DataError(
            f"{source} has no training part: it has {', '.join(parts)}.",
            expected="a part named train.",
            action="rename it, or name the file with --set data.train=...",
        )
    return Tables(train, parts.get("validation"), parts.get("test"))


def _class_folders(folder: Path) -> list[Path]:
    """The sub-folders of `folder` that hold .txt files: each is a class."""
    return [path for path in _visible(folder) if path.is_dir() and any(path.glob("*.txt"))]


def _read_classes(folder: Path, classes: list[Path], options: FileOptions) -> Table:
    """One row a .txt file; an empty file is a row without text, which cleaning drops and counts."""
    texts, labels, guessed = [], [], []
    for path in (path for sub in classes for path in sorted(sub.glob("*.txt"))):
        content = read_bytes(path) if path.stat().st_size else b""
        decoded = decode(content, options.encoding, str(path))
        texts.append(decoded.text.replace("\r\n", "\n"))
        labels.append(path.parent.name)
        guessed += [decoded.guessed] if decoded.guessed else []
    findings: tuple[str, ...] = ()
    if guessed:
        names = ", ".join(sorted(set(guessed)))
        findings = (f"{len(guessed):,} of {len(texts):,} files are not UTF-8: they were read as {names}, a guess.",)
    return Table(folder.name, {"text": tuple(texts), "label": tuple(labels)}, findings=findings)


def _read_hub(name: str) -> Tables:
    return _from_library(open_from_hub(name), name, "train")


def _from_library(loaded: Any, source: str, alone: str) -> Tables:
    """The tables of a `datasets.Dataset` or `DatasetDict`."""
    if not isinstance(loaded, dict):
        return Tables(table_of(loaded, source))
    parts = {}
    for part, names in PART_NAMES.items():
        split = next((split for split in loaded if split.lower() in names), None)
        if split is not None:
            parts[part] = table_of(loaded[split], f"{source} ({split})")
    return _tables(parts, source, alone)
