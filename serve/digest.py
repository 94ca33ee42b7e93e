"""SHA-256 of files and of plain values: what bundles, stages and caches are recognised by."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def value_sha256(value: object) -> str:
    """The SHA-256, in hex, of a value made of JSON types; equal values give equal digests in any key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def folder_sha256(folder: Path) -> str:
    """The SHA-256, in hex, over the relative names and bytes of all files below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return value_sha256({path.relative_to(folder).as_posix(): file_sha256(path) for path in files})
