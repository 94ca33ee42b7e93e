"""The command line in the test's own process for session fixtures, which have neither `capfd` nor `monkeypatch`.

A process of its own spends six to ten CPU seconds on importing what builds.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


def keep_environment(patch: pytest.MonkeyPatch) -> None:
    """Give back, at the end of `patch`, what a command sets for its own process and its children."""
    for name in ("OMP_WAIT_POLICY", "HF_HUB_DISABLE_TELEMETRY"):
        patch.setenv(name, os.environ.get(name, "1" if name.startswith("HF") else "passive"))
    for name in ("EDGETUNE_TRAINS_WITH", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        if name not in os.environ:
            patch.setenv(name, "")  # so that undoing takes it away
            del os.environ[name]
    patch.setenv("TOKENIZERS_PARALLELISM", "false")


@contextlib.contextmanager
def _redirected(name: str, descriptor: int, patch: pytest.MonkeyPatch) -> Iterator[BinaryIO]:
    """A file of all that is written to a descriptor, libraries in C included, and to Python's stream of it."""
    before = os.dup(descriptor)
    with tempfile.TemporaryFile() as file, open(descriptor, "w", encoding="utf-8", closefd=False) as stream:
        try:
            os.dup2(file.fileno(), descriptor)
            patch.setattr(sys, name, stream)
            yield file
            stream.flush()
        finally:
            os.dup2(before, descriptor)
            os.close(before)


def run_here(*arguments: object, folder: Path | None = None) -> Ended:
    """Run a command with `folder` as the current one, all that it writes captured."""
    from edgetune.cli import main

    with (
        pytest.MonkeyPatch.context() as patch,
        _redirected("stdout", 1, patch) as out,
        _redirected("stderr", 2, patch) as err,
    ):
        keep_environment(patch)
        patch.setattr(sys, "argv", ["edgetune", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
        if folder is not None:
            patch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        sys.stdout.flush()
        sys.stderr.flush()
        return Ended(code, *(_text(file) for file in (out, err)))


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8")
