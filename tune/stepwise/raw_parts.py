"""What a name in a recipe stands for, where rows are texts or chats: a file, a folder, or a data set on the hub.

As `tune/data/sources.py` does for tables of words; here whole rows come together by part. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.serve.errors import DataError
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.json_documents import PART_NAMES
from edgetune.tune.data.saved_sets import open_from_hub, open_saved
from edgetune.tune.data.sources import HUB_ID, Named, part_files
from edgetune.tune.stepwise.rows import ROW_SUFFIXES, RawRows, raw_rows_of, read_rows, text_of_folder


@dataclass(frozen=True)
class RawParts:
    """The rows of each part as they were read; a part that nobody gave is None."""

    train: RawRows
    validation: RawRows | None = None
    test: RawRows | None = None

    @property
    def given(self) -> tuple[RawRows, ...]:
        """The parts that there are, in their order."""
        return tuple(part for part in (self.train, self.validation, self.test) if part is not None)


def read_raw_parts(named: Named, options: FileOptions) -> RawParts:
    """Read all that is named. A part named on its own goes before one that lies in the training source.

    Raises:
        DataError: a source is missing, unreadable, damaged or of an unknown layout.
    """
    parts = _read_source(named.train, options, "train")
    validation = parts.validation if named.validation is None else _part(named.validation, "validation", options)
    test = parts.test if named.test is None else _part(named.test, "test", options)
    return RawParts(parts.train, validation, test)


def _part(name: str, part: str, options: FileOptions) -> RawRows:
    """The part of that name in the source `name`, else its training part, which is all that a file has."""
    parts = _read_source(name, options, part)
    inside: RawRows | None = getattr(parts, part)
    return parts.train if inside is None else inside


def _read_source(name: str, options: FileOptions, part: str) -> RawParts:
    path = Path(name).expanduser()
    if path.is_dir():
        return _read_folder(path, options, part)
    if path.exists() or path.suffix.lower() in ROW_SUFFIXES or not HUB_ID.fullmatch(name):
        return RawParts(read_rows(path, options))
    return _from_library(open_from_hub(name), name, part)


def _read_folder(folder: Path, options: FileOptions, alone: str) -> RawParts:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _from_library(open_saved(folder), str(folder), alone)
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = part_files(folder, ROW_SUFFIXES)
    if files:
        return _raw_parts({part: _joined(paths, options) for part, paths in files.items()}, str(folder), alone)
    texts = [path for path in visible if path.suffix.lower() == ".txt"]
    if texts:
        return RawParts(text_of_folder(folder, texts, options))
    sight = ", ".join(path.name + "/" * path.is_dir() for path in visible[:5]) or "nothing"
    raise DataError(
        f"The folder {folder} has none of the layouts that can be read: it holds {sight}.",
        expected=f"files train, validation and test ({', '.join(ROW_SUFFIXES)}), .txt files of one text each, or "
        "what datasets' save_to_disk wrote.",
        action="name the file instead of its folder, or each part with --set data.train=...",
    )


def _joined(paths: Sequence[Path], options: FileOptions) -> RawRows:
    """The rows of all pieces of a part."""
    pieces = [read_rows(path, options) for path in paths]
    findings = tuple(dict.fromkeys(finding for piece in pieces for finding in piece.findings))
    return RawRows(pieces[0].source, tuple(row for piece in pieces for row in piece.rows), findings)


def _raw_parts(parts: Mapping[str, RawRows], source: str, alone: str) -> RawParts:
    train = parts.get("train", parts.get(alone))
    if train is None:
        raise DataError(
            f"{source} has no training part: it has {', '.join(parts)}.",
            expected="a part named train.",
            action="rename it, or name the file with --set data.train=...",
        )
    return RawParts(train, parts.get("validation"), parts.get("test"))


def _from_library(loaded: Any, source: str, alone: str) -> RawParts:
    """The rows of a `datasets.Dataset` or `DatasetDict`."""
    if not isinstance(loaded, dict):
        return RawParts(_raw_rows(loaded, source))
    splits = {
        part: next((split for split in loaded if split.lower() in names), None) for part, names in PART_NAMES.items()
    }
    present = {part: split for part, split in splits.items() if split is not None}
    if not present:
        raise DataError(
            f"{source} has no part that is named as one: it has {', '.join(loaded)}.",
            expected="parts named train, and perhaps validation and test.",
            action="save the part that is wanted as a .jsonl or .parquet file and name that.",
        )
    parts = {part: _raw_rows(loaded[split], f"{source} ({split})") for part, split in present.items()}
    return _raw_parts(parts, source, alone)


def _raw_rows(dataset: Any, source: str) -> RawRows:
    return raw_rows_of(dataset.with_format("arrow")[:].to_pylist(), source)
