"""Keeping the libraries' own chatter off the screen: it goes to a log file in the work folder unless `-v`.

At the level of file descriptors, because loggers keep the stream they were made with and native code knows no
Python streams at all; the console gets a copy of the real stream first.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from edgetune.serve.errors import WorkError


@contextlib.contextmanager
def quiet(log: Path, *, to_stderr: bool, verbose: bool) -> Iterator[TextIO]:
    """Send all that is printed or warned to `log`, and hand out the stream for our own lines.

    Args:
        log: the file that chatter is appended to.
        to_stderr: our own lines go to stderr, and stdout is left for one JSON document.
        verbose: nothing is redirected.
    """
    stream = sys.stderr if to_stderr else sys.stdout
    if verbose:
        yield stream
        return
    with (
        _copy(stream) as ours,
        _open_log(log) as sink,
        _descriptors_to(sink),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield ours


class _Log(io.FileIO):
    """A log that a full disk leaves short: chatter that is lost is no reason to lose a build."""

    def write(self, content: Any, /) -> int:
        with contextlib.suppress(OSError):
            super().write(content)
        return len(content)


def _open_log(log: Path) -> TextIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return io.TextIOWrapper(_Log(str(log), "ab"), encoding="utf-8", errors="replace", write_through=True)
    except OSError as error:
        raise WorkError(
            f"The work folder {log.parent} cannot be written to: {error.strerror or error}.",
            expected="a folder that this user may write to, with room left",
            action="choose another --out",
        ) from error


@contextlib.contextmanager
def _copy(stream: TextIO) -> Iterator[TextIO]:
    """A stream of its own on the same terminal or file; a stream without a descriptor is used as it is."""
    try:
        descriptor = os.dup(stream.fileno())
    except (OSError, io.UnsupportedOperation):
        yield stream
        return
    with os.fdopen(descriptor, "w", encoding=stream.encoding, errors="replace", buffering=1) as ours:
        yield ours


@contextlib.contextmanager
def _descriptors_to(sink: TextIO) -> Iterator[None]:
    kept = {}
    try:
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            kept[descriptor] = os.dup(descriptor)
            os.dup2(sink.fileno(), descriptor)
        yield
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
