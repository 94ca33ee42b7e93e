"""What stands for a stage's inputs, for every task: sections as JSON types, data files by size and time."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def plain(section: BaseModel) -> Any:
    """A section of a recipe as JSON types."""
    return section.model_dump(mode="json")


def source_state(*paths: str | None) -> dict[str, list[int]]:
    """Size and modification time of every local file under `paths`: a changed file is read again."""
    files = [file for path in paths if path for file in _files(Path(path))]
    return {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path] if path.is_file() else []


def command_line() -> str:
    """The command line as it was given, to repeat or to continue with."""
    return shlex.join(["edgetune", *sys.argv[1:]])
