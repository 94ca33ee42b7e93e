"""What `edgetune predict` takes of a bundle of pictures: files, folders of them, and tables that name them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from edgetune.serve.errors import InputError
from edgetune.tune.data.data_urls import DATA_URL, SUFFIXES

Texts = tuple[str, ...]


def with_folders(names: Iterable[str]) -> Iterator[str]:
    """Each name of a file as it is, and for each folder the pictures in it and below it, in order.

    Raises:
        InputError: a folder holds none.
    """
    for name in names:
        if not Path(name).is_dir():
            yield name
            continue
        pictures = sorted(path for path in Path(name).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not pictures:
            raise InputError(f"The folder {name} holds no picture.", expected=f"files of {', '.join(SUFFIXES)}")
        yield from map(str, pictures)


def beside(table: Path, rows: Iterable[Texts]) -> Iterator[Texts]:
    """The rows of a table, whose relative names start from its folder."""
    for (name,) in rows:
        yield (name if name.startswith(DATA_URL) or not name.strip() else str(table.parent / name.strip()),)
