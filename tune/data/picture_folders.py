"""Folders of pictures: one sub-folder a class, in parts or not, or a table of file names beside the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.data_urls import SUFFIXES
from edgetune.tune.data.reading import Table

# As `datasets` names the table of an image folder, with a column `file_name`.
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


_SAMPLED = 20


def metadata_of(folder: Path) -> Path | None:
    """The table of file names in a folder of pictures; None where there is none."""
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that lie directly in a folder."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def picture_classes(folder: Path) -> list[Path]:
    """The sub-folders of a folder that hold pictures: each is a class."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [path for path in folders if pictures_in(path)]


def read_picture_classes(folder: Path, classes: Sequence[Path]) -> Table:
    """One row a picture: its path, and the name of its folder."""
    paths = [path for sub in classes for path in pictures_in(sub)]
    others = sum(1 for sub in classes for path in sub.iterdir() if path.is_file()) - len(paths)
    notes = (f"Left out {counted(others, 'file')} that are no pictures.",) if others else ()
    # Absolute: names that are not start from the table's folder.
    columns = {"image": tuple(str(path.absolute()) for path in paths), "label": tuple(p.parent.name for p in paths)}
    return Table(folder.name, columns, findings=notes, folder=str(folder))


def sample_of_folder(folder: Path) -> dict[str, tuple[str, ...]]:
    """Paths and classes of a few pictures of a folder, or of the first of its parts, by column; {} of any other."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for place in (folder, *inner):
        if metadata_of(place) is not None and pictures_in(place):
            paths = pictures_in(place)[:_SAMPLED]
            return {"image": tuple(map(str, paths)), "label": ("",) * len(paths)}
        if classes := picture_classes(place):
            paths = [path for sub in classes[:_SAMPLED] for path in pictures_in(sub)[:2]]
            return {"image": tuple(map(str, paths)), "label": tuple(path.parent.name for path in paths)}
    return {}
