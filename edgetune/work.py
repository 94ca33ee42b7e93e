"""The work folder: one folder a stage, and `stages.json` with the digest of what went into each.

A stage whose digest stands is opened, not run again. A stage works in `<stage>.part` and is renamed when it is
whole, so that a build killed at any moment continues with the same command.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edgetune.benchmarks.memory import process_memory, reset_peak
from edgetune.progress import StageLines
from edgetune.serve.digest import value_sha256
from edgetune.serve.errors import WorkError

T = TypeVar("T")
_KEY_NAME = "stage-key.txt"
LOG_NAME = "build.log"


class Work:
    """The stages of one build on disk.

    Attributes:
        folder: `<out>.work`.
        seconds: wall time of each stage when it ran, also of stages that were kept.
        peak_bytes: peak resident memory of each stage when it ran.
    """

    def __init__(self, folder: Path, lines: StageLines, *, fresh: bool) -> None:
        self.folder = folder
        self._lines = lines
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                _forget(folder)
        except OSError as error:
            raise WorkError(f"The work folder {folder} cannot be made: {error.strerror}.") from error
        self._record = self._read_record()
        self._chain = ""

    def stage(
        self,
        name: str,
        inputs: object,
        make: Callable[[Path], object],
        reopen: Callable[[Path], T],
        found: Callable[[T], str],
    ) -> T:
        """Run a stage, or open what it left when it last ran on the same inputs.

        Args:
            name: the stage and its folder.
            inputs: what shapes the result beside the stages before, as JSON types.
            make: writes the stage's files into the folder it is given, from where it left when it was stopped.
            reopen: opens those files.
            found: what the stage found, a few words for its line.
        """
        self._chain = value_sha256([self._chain, name, inputs])
        folder = self.folder / name
        if self._record.get(name, {}).get("digest") == self._chain and folder.is_dir():
            result = reopen(folder)
            self._lines.kept(name, found(result))
            return result
        with self._lines.running(name) as line:
            reset_peak()
            start = time.perf_counter()
            self._run(name, make)
            result = reopen(folder)
            line.found(found(result))
            seconds = time.perf_counter() - start
        self._note(name, seconds, process_memory().rss_peak_bytes)
        return result

    def _run(self, name: str, make: Callable[[Path], object]) -> None:
        part = self.folder / f"{name}.part"
        key = part / _KEY_NAME
        if not (key.is_file() and key.read_text(encoding="utf-8") == self._chain):
            shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(exist_ok=True)
            key.write_text(self._chain, encoding="utf-8")
            make(part)
            shutil.rmtree(self.folder / name, ignore_errors=True)
            part.rename(self.folder / name)
        except OSError as error:
            if error.errno is None:
                raise
            raise WorkError(
                f"The stage {name} cannot write to {self.folder}: {error.strerror or error}.",
                action="free space, or choose an --out on another disk; the same command continues where this stopped",
            ) from error

    def _note(self, name: str, seconds: float, peak: int | None) -> None:
        self._record[name] = {"digest": self._chain, "seconds": round(seconds, 2), "peak_bytes": peak}
        path = self.folder / "stages.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self._record, indent=2), encoding="utf-8")
        part.replace(path)

    def _read_record(self) -> dict[str, dict[str, str | float | int | None]]:
        try:
            record: dict[str, dict[str, str | float | int | None]] = json.loads(
                (self.folder / "stages.json").read_text(encoding="utf-8")
            )
        except (OSError, json.JSONDecodeError):
            return {}  # a record that is missing or torn only means that stages run again
        return record

    @property
    def seconds(self) -> dict[str, float]:
        """Wall seconds by stage."""
        return {name: float(entry["seconds"] or 0) for name, entry in self._record.items()}

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Peak resident bytes by stage, of those that could be measured."""
        return {name: int(entry["peak_bytes"]) for name, entry in self._record.items() if entry["peak_bytes"]}


def _forget(folder: Path) -> None:
    """Remove what earlier builds left, but for the log that this one is writing."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOG_NAME:
            path.unlink()
