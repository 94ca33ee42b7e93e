"""What the worker processes of one server tell each other: versions of bundles, and which shall be loaded or not.

A request to load or unload reaches one worker only; the others read here that it was made. One small file under a
lock, so that a worker killed at any moment leaves it whole. Must not import the web server.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import msgspec


class ModelRequest(msgspec.Struct, frozen=True):
    """What was asked for last for one model: the folder to load, or None to unload. `revision` counts the requests."""

    revision: int
    path: str | None


class _Content(msgspec.Struct):
    versions: dict[str, list[str]] = msgspec.field(default_factory=dict)
    requests: dict[str, ModelRequest] = msgspec.field(default_factory=dict)
    # By worker, the last request for each model that it has followed.
    followed: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)


class Journal:
    """The journal of one server: in a file that its workers share, or in memory where there is one process.

    `complete` is whether all workers have opened their bundles once: until then a ready one may not speak for the port.
    """

    def __init__(self, path: Path | None = None, *, complete: bool = True) -> None:
        self.complete = complete
        self._path = path
        self._content = _Content()
        self._lock = threading.Lock()
        self._worker = f"{os.getpid()}-{uuid4().hex}"

    @property
    def shared(self) -> bool:
        """Whether other processes write here too."""
        return self._path is not None

    def version(self, name: str, fingerprint: str) -> str:
        """The version of the bundle with this fingerprint: that of the last one if it is the same, else one more."""
        with self._open() as content:
            known = content.versions.setdefault(name, [])
            if not known or known[-1] != fingerprint:
                known.append(fingerprint)
            return str(len(known))

    def request(self, name: str, path: Path | None) -> int:
        """Write down that `name` shall be loaded from `path`, or unloaded; returns the revision."""
        with self._open() as content:
            before = content.requests.get(name)
            revision = before.revision + 1 if before else 1
            content.requests[name] = ModelRequest(revision, None if path is None else str(path))
            return revision

    def requests(self) -> dict[str, ModelRequest]:
        """The last request for each model that one was made for."""
        with self._open() as content:
            return dict(content.requests)

    def follow(self, revisions: Mapping[str, int]) -> None:
        """Write down which requests this worker has done what was asked for, or has tried to."""
        if self.shared:
            with self._open() as content:
                content.followed.setdefault(self._worker, {}).update(revisions)

    def leave(self) -> None:
        """Let nobody wait for this worker any more."""
        if self.shared:
            with self._open() as content:
                content.followed.pop(self._worker, None)

    def lagging(self, name: str, revision: int) -> int:
        """How many other workers that live have not followed a request yet."""
        if not self.shared:
            return 0
        with self._open() as content:
            for worker in [worker for worker in content.followed if not _lives(worker)]:
                del content.followed[worker]
            others = (done for worker, done in content.followed.items() if worker != self._worker)
            return sum(done.get(name, 0) < revision for done in others)

    @contextlib.contextmanager
    def _open(self) -> Iterator[_Content]:
        """The content under the lock; what is changed in it is written when the block ends."""
        with self._lock:
            if self._path is None:
                yield self._content
                return
            with _locked(self._path.with_suffix(".lock")):
                raw = self._path.read_bytes() if self._path.exists() else b"{}"
                content = msgspec.json.decode(raw, type=_Content)
                yield content
                changed = msgspec.json.encode(content)
                if changed != raw:
                    beside = self._path.with_suffix(f".{os.getpid()}")
                    beside.write_bytes(changed)
                    beside.replace(self._path)


def _lives(worker: str) -> bool:
    try:
        os.kill(int(worker.partition("-")[0]), 0)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    # POSIX alone has it, as it has the workers that share a journal.
    import fcntl

    with path.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
