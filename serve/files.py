"""Reading files of a folder that nobody vouches for: regular files alone, never through a link, never past a bound.

A link to /dev/zero has no end, and a FIFO does not answer: neither may reach a parser. Must import the standard library
alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

# Not there on every system. O_NONBLOCK: opening a FIFO that nobody writes would wait for ever.
_FLAGS = os.O_RDONLY
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)

_CHUNK_BYTES = 1024 * 1024


def shape_fault(path: Path) -> str:
    """Why a path is no regular file, as the end of a sentence; empty where it is one. A folder counts as missing."""
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):
        return "is missing"
    if stat.S_ISLNK(mode):
        return "is a link"
    if stat.S_ISDIR(mode):
        return "is missing"
    return "" if stat.S_ISREG(mode) else "is no regular file"


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        OSError: it is something else, or larger; `strerror` says which.
    """
    with open_regular(path) as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes", str(path))
    return content


def sha256_regular(path: Path, size: int) -> str:
    """The SHA-256, in hex, of a regular file's first `size` bytes: one that grows is not followed.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while size > 0 and (chunk := stream.read(min(size, _CHUNK_BYTES))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading.

    Raises:
        OSError: it is something else; `strerror` says which.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is no regular file", str(path)) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is no regular file", str(path))
