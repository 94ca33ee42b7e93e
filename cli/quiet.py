"""Keeping the libraries' own chatter off the screen: it goes to a log file in the work folder unless `-v`.

At the level of file descriptors, because native code knows no Python streams at all; the console gets a copy of the
real stream first. Log handlers keep the stream they were made with, which in a notebook has no descriptor: they are
pointed to the log, and back to the screen when it is closed.
"""

from __future__ import annotations

import contextlib
import io
import logging
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
        _handlers_to(sink),
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


@contextlib.contextmanager
def _handlers_to(sink: TextIO) -> Iterator[None]:
    """Point the log handlers that write to the screen to `sink`, then them and those made meanwhile to the screen."""
    screen, before = sys.stderr, {}
    for handler in _handlers():
        if handler.stream in (sys.stdout, sys.stderr):
            before[handler] = handler.setStream(sink)
    try:
        yield
    finally:
        for handler in _handlers():
            if handler.stream is sink:
                handler.setStream(before.get(handler, screen))


def _handlers() -> set[logging.StreamHandler[Any]]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return {
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)  # or a place in the tree that nobody logs to
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and "stream" in vars(handler)  # or it looks it up each time
    }
