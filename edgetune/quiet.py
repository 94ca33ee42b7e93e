"""Keeping the libraries' own chatter off the screen: it goes to a log file in the work folder unless `-v`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet(log: Path, *, verbose: bool) -> Iterator[None]:
    """Send what Python code prints or warns to `log` while the work goes on; our own lines have their own console."""
    if verbose:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    with (
        log.open("a", encoding="utf-8", errors="replace") as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
        warnings.catch_warnings(),
        _root_logger_to(stream),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _root_logger_to(stream: object) -> Iterator[None]:
    handler = logging.StreamHandler(stream)  # type: ignore[type-var]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def real_stderr() -> object:
    """The process's own stderr, whatever is redirected."""
    return sys.__stderr__
