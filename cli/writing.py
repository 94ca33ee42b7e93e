"""Files that a user asked for, whole or not there. Must import nothing beyond the floor."""

from __future__ import annotations

import os
from pathlib import Path

from edgetune.serve.errors import WorkError


def write_text(path: Path, text: str, *, option: str) -> None:
    """Write beside `path`, then rename; folders that lack are made. `option` is the one that names the path.

    Raises:
        WorkError: it cannot be written there.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(path)
    except OSError as error:
        if beside.exists():
            beside.unlink()
        raise WorkError(
            f"{path} cannot be written: {error.strerror or error}.",
            expected="a folder that this user may write to.",
            action=f"name another place with {option}.",
        ) from error


def check_writable(path: Path | None, *, option: str) -> None:
    """Refuse a place that cannot be written before minutes are spent on what should go there.

    Raises:
        WorkError: its folder is a file, or closed to this user.
    """
    if path is None:
        return
    above = next((folder for folder in path.absolute().parents if folder.exists()), None)
    if above is not None and not (above.is_dir() and os.access(above, os.W_OK)):
        raise WorkError(
            f"{path} cannot be written: {above} takes no files.",
            expected="a file in a folder that this user may write to.",
            action=f"name another place with {option}.",
        )
