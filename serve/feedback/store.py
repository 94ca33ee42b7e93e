"""Writing a feedback folder: JSON lines appended to a file of this process's own, synced before a vote is acknowledged.

A line is handed to the system in one write before its request is answered, so a process that is killed loses nothing
that it has told of; votes also wait until the file is synced, many in one go, and outlive a loss of power. Each process
writes files of its own, so that no two can tear each other's lines. Must not import the web server.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec

from edgetune.serve.errors import WorkError
from edgetune.serve.feedback.entries import Entry

logger = logging.getLogger("edgetune.serve")

PREFIX, SUFFIX = "feedback-", ".jsonl"
DEFAULT_BYTES = 1024**3
LEAST_BYTES = 1024**2
MOST_SEGMENT_BYTES = 16 * 1024**2
SEGMENTS = 8  # of the folder's bytes, at least, so that what makes room is an eighth of them
MOST_LINE_BYTES = LEAST_BYTES // SEGMENTS
SYNC_SECONDS = 1.0


class FeedbackStore:
    """The folder of one server process. Its methods may be called from any thread.

    Attributes:
        dropped: entries that were not kept: too long a line, or a disk that takes no more.
    """

    def __init__(self, folder: Path, *, most_bytes: int = DEFAULT_BYTES) -> None:
        """Open the folder; the first file comes with the first entry.

        Raises:
            WorkError: it cannot be written to.
        """
        check_folder(folder)
        self.folder = folder
        self.dropped = 0
        self._most_bytes = most_bytes
        self._segment_bytes = min(MOST_SEGMENT_BYTES, most_bytes // SEGMENTS)
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._size = 0
        self._synced_at = self._asked_at = time.monotonic()
        self._syncing = ThreadPoolExecutor(1, "edgetune-feedback")
        self._encoder = msgspec.json.Encoder()

    def write(self, entry: Entry) -> bool:
        """Hand a line to the system; False where it was not kept, which is counted and logged, never raised."""
        line = self._encoder.encode(entry) + b"\n"
        if len(line) > MOST_LINE_BYTES:
            self.drop(f"a line of {len(line):,} bytes is too long: at most {MOST_LINE_BYTES:,} are kept")
            return False
        with self._lock:
            try:
                self._append(line)
            except OSError as error:
                self.drop(f"{self.folder} takes nothing: {error.strerror or error}")
                return False
        return True

    def write_soon_synced(self, entry: Entry) -> bool:
        """As `write`, and synced within about a second, without anybody waiting for it."""
        written = self.write(entry)
        if time.monotonic() - self._asked_at >= SYNC_SECONDS:
            self._asked_at = time.monotonic()
            self._syncing.submit(self._sync_quietly)
        return written

    async def write_durably(self, entry: Entry) -> bool:
        """As `write`, and True only when the line is on the disk; those that wait at once share one sync."""
        if not self.write(entry):
            return False
        try:
            await asyncio.get_running_loop().run_in_executor(self._syncing, self._sync_after, time.monotonic())
        except OSError as error:
            self.drop(f"{self.folder} cannot be synced: {error.strerror or error}")
            return False
        return True

    def close(self) -> None:
        """Sync and close; nothing is written afterwards."""
        self._syncing.shutdown(wait=True)
        with self._lock:
            if self._descriptor is not None:
                with contextlib.suppress(OSError):
                    os.fsync(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = None

    def _sync_after(self, written: float) -> None:
        """Sync, unless a sync that began later than `written` has done it: so many votes cost one."""
        if self._synced_at <= written:
            began = time.monotonic()
            self._sync()
            self._synced_at = began

    def _sync_quietly(self) -> None:
        try:
            self._sync()
        except OSError as error:
            logger.warning("feedback cannot be synced: %s", error)

    def _sync(self) -> None:
        with self._lock:
            descriptor = None if self._descriptor is None else os.dup(self._descriptor)
        if descriptor is None:
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _append(self, line: bytes) -> None:
        if self._descriptor is None or self._size + len(line) > self._segment_bytes:
            self._rotate()
        assert self._descriptor is not None
        done = os.write(self._descriptor, line)
        if done < len(line):  # the disk is full: half a line must not stand before the next one
            os.ftruncate(self._descriptor, self._size)
            raise OSError(errno.ENOSPC, "the disk is full")
        self._size += done

    def _rotate(self) -> None:
        """Close the file in use, remove the oldest where there is no room, and open a new one."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        self._make_room()
        name = f"{PREFIX}{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}-{uuid4().hex[:6]}{SUFFIX}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._descriptor, self._size = os.open(self.folder / name, flags, 0o600), 0
        _hold(self._descriptor)
        with contextlib.suppress(OSError), _folder_descriptor(self.folder) as descriptor:
            os.fsync(descriptor)

    def _make_room(self) -> None:
        """Remove the oldest files until all that are in use may grow to their full size."""
        sizes = {path: path.stat().st_size for path in segments(self.folder)}
        held = {path for path in sizes if _is_held(path)}
        total = self._segment_bytes * (1 + len(held)) + sum(size for path, size in sizes.items() if path not in held)
        for path, size in sizes.items():
            if total <= self._most_bytes:
                return
            if path in held:
                continue
            logger.warning(
                "feedback has reached its %d bytes: the oldest file, %s, was removed", self._most_bytes, path.name
            )
            path.unlink(missing_ok=True)
            total -= size

    def drop(self, reason: str) -> None:
        """Count and log that something was not kept."""
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # the first, second, fourth, ...: a full disk is told, not chanted
            logger.warning("feedback was not kept (%d until now): %s", self.dropped, reason)


def segments(folder: Path) -> list[Path]:
    """The files of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*{SUFFIX}") if path.is_file())


def check_folder(folder: Path) -> None:
    """Make the folder where it lacks, closed to other users.

    Raises:
        WorkError: it cannot be made or written to.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK | os.X_OK)
        reason = "" if usable else "it takes no files"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise WorkError(
            f"Feedback cannot be kept in {folder}: {reason}.",
            expected="a folder that this user may write to",
            action="name another with --feedback",
        )


@contextlib.contextmanager
def _folder_descriptor(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _hold(descriptor: int) -> None:
    """Mark a file as in use, until this process closes it or ends."""
    with contextlib.suppress(ImportError, OSError):  # other systems have no workers, and one process holds one file
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _is_held(path: Path) -> bool:
    """Whether a living process writes this file."""
    try:
        import fcntl

        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return False
    except OSError:
        return True
    return False
