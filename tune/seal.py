"""Whether a folder still holds what was written into it: a key for what it was made from, and every file's digest."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgetune.serve.digest import file_sha256, value_sha256

SEAL_NAME = "seal.json"


class _File(msgspec.Struct, frozen=True):
    """A file as it was when the folder was finished."""

    bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> _File:
        state = path.stat()
        return cls(state.st_size, state.st_mtime_ns, file_sha256(path))

    def is_same(self, path: Path) -> bool:
        """Whether the file is there unchanged; its bytes are read only where its time of change is another."""
        if not path.is_file() or (state := path.stat()).st_size != self.bytes:
            return False
        return state.st_mtime_ns == self.mtime_ns or file_sha256(path) == self.sha256


class _Seal(msgspec.Struct, frozen=True):
    """What a folder was made from, and its files by relative name; None while it is being made."""

    key: str
    files: dict[str, _File] | None = None


def begin(folder: Path, key: str) -> None:
    """Mark a folder that is being made from what `key`, a digest, stands for."""
    _write(folder, _Seal(key))


def finish(folder: Path, key: str) -> None:
    """Mark a folder as whole."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SEAL_NAME)
    _write(folder, _Seal(key, {path.relative_to(folder).as_posix(): _File.of(path) for path in paths}))


def is_begun(folder: Path, key: str) -> bool:
    """Whether the folder is being made from these very inputs."""
    seal = _read(folder)
    return seal is not None and seal.key == key and seal.files is None


def is_whole(folder: Path, key: str) -> bool:
    """Whether the folder was finished from these very inputs and no file has changed or gone since."""
    seal = _read(folder)
    if seal is None or seal.key != key or seal.files is None:
        return False
    return all(file.is_same(folder / name) for name, file in seal.files.items())


def content_sha256(folder: Path) -> str:
    """The digest, in hex, of the names and bytes of the files of a finished folder, as they were sealed."""
    seal = _read(folder)
    files = (seal.files if seal else None) or {}
    return value_sha256({name: file.sha256 for name, file in files.items()})


def _write(folder: Path, seal: _Seal) -> None:
    (folder / SEAL_NAME).write_bytes(msgspec.json.encode(seal))


def _read(folder: Path) -> _Seal | None:
    """The seal of a folder; None where there is none that can be read."""
    try:
        return msgspec.json.decode((folder / SEAL_NAME).read_bytes(), type=_Seal)
    except (OSError, msgspec.DecodeError):
        return None
