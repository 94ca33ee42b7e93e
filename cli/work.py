"""The work folder: one folder a stage, and `stages.json` with the digest of what went into each.

A stage whose digest has not changed is opened, not run again. A stage works in `<stage>.part` and is renamed when it is
whole, so that a build killed at any moment continues with the same command. One build at a time works in a folder.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from edgetune.benchmarks.timing.memory import process_memory, reset_peak
from edgetune.progress import StageLines
from edgetune.serve.digest import value_sha256
from edgetune.serve.errors import WorkError
from edgetune.tune.seal import SEAL_NAME, begin, content_sha256, finish, is_begun, is_whole
from edgetune.tune.training.processes import is_main, main_first

T = TypeVar("T")
LOG_NAME, LOCK_NAME, PLAN_NAME = "build.log", "build.lock", "plan.json"
ROWS_NAME = "rows"  # the folder of rows that a program held in memory
# What the other processes of `accelerate launch` do in a stage: they never come there, they wait until the main process
# has finished it, or they help to run it.
Others = Literal["absent", "wait", "help"]
# What a disk or its owner refuses; any other OSError inside a stage is a bug and keeps its traceback.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}
_PROBE_BYTES = 1 << 20


class StageRecord(msgspec.Struct, frozen=True):
    """What is noted of a finished stage: the digest of what went in, wall seconds, peak resident memory in bytes."""

    digest: str
    seconds: float
    peak_bytes: int | None = None


@dataclass(frozen=True)
class StageRun(Generic[T]):
    """What the work folder has to know of a stage to run or open it.

    Attributes:
        name: the stage and its folder.
        inputs: what shapes the result beside the stages before, as JSON types.
        make: writes the stage's files into the folder it is given, from where it left when it was stopped.
        reopen: opens those files.
        line: a few words on the result.
        others: what the other processes of `accelerate launch` do.
        outcome: what the stages behind are made from, as JSON types; None for the files and all that went into them,
            so that a stage that was made again with another result is followed by those behind it.
    """

    name: str
    inputs: object
    make: Callable[[Path], object]
    reopen: Callable[[Path], T]
    line: Callable[[T], str]
    others: Others = "absent"
    outcome: Callable[[T], object] = lambda _: None


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
        with _making(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                _forget(folder)
        self._record = self._read_record()
        self._chain = ""
        self._digests: dict[str, str] = {}

    def is_finished(self, name: str, inputs: object) -> bool:
        """Whether the next stage was run on the same inputs, so that it would be opened."""
        digest = value_sha256([self._chain, name, inputs])
        return self._noted(name) == digest and is_whole(self.folder / name, digest)

    def plan(self, seconds: Mapping[str, float]) -> None:
        """Store how long the stages are expected to take, to be compared with what they took."""
        self.write(PLAN_NAME, json.dumps(dict(seconds), indent=2).encode())

    @property
    def planned(self) -> dict[str, float]:
        """Expected seconds by stage, as they were stored before training; none of a work folder without."""
        try:
            return msgspec.json.decode((self.folder / PLAN_NAME).read_bytes(), type=dict[str, float])
        except (OSError, msgspec.DecodeError):
            return {}

    @property
    def trials(self) -> Path:
        """Where a search keeps what it made."""
        return self.folder / "trials"

    def digest(self, stage: str) -> str:
        """The digest of all that went in up to a stage that this build has run or opened."""
        return self._digests[stage]

    def stage(self, step: StageRun[T]) -> T:
        """Run a stage, or open what it left when it last ran on the same inputs."""
        result = self._result(step)
        content = step.outcome(result)
        if content is None:
            content = [self._chain, content_sha256(self.folder / step.name)]
        self._chain = self._digests[step.name] = value_sha256([step.name, content])
        return result

    def _result(self, step: StageRun[T]) -> T:
        name, inputs, line, others = step.name, step.inputs, step.line, step.others
        folder = self.folder / name
        with main_first() if others == "wait" else nullcontext():
            if not is_main():
                self._record = self._read_record()  # the main process may have finished the stage just now
            finished = self.is_finished(name, inputs)
            self._chain = value_sha256([self._chain, name, inputs])
            if finished:
                result = step.reopen(folder)
                self._lines.show_finished(name, line(result))
                return result
            if others == "wait" and not is_main():
                raise WorkError(f"The main process did not finish the stage {name}.")
            with self._lines.running(name) as running:
                reset_peak()
                start = time.perf_counter()
                self._run(name, step.make, helped=others == "help")
                result = step.reopen(folder)
                running.finish(line(result))
                seconds = time.perf_counter() - start
            if is_main():
                self._note(name, seconds, process_memory().rss_peak_bytes)
            return result

    def _run(self, name: str, make: Callable[[Path], object], *, helped: bool) -> None:
        part = self.folder / f"{name}.part"
        with self._writing(f"The stage {name}"):
            with main_first() if helped else nullcontext():
                self._begin(part)
            make(part)
            with main_first() if helped else nullcontext():
                if is_main():
                    self._place(part, self.folder / name)

    def _begin(self, part: Path) -> None:
        """Make the folder that a stage works in, or keep it where it holds an earlier try on the same inputs."""
        if not is_begun(part, self._chain):
            shutil.rmtree(part, ignore_errors=True)
        part.mkdir(exist_ok=True)
        begin(part, self._chain)

    def _place(self, part: Path, whole: Path) -> None:
        """Put a finished stage's folder in its place."""
        finish(part, self._chain)
        # The seal first: a folder that is half removed when the build is killed must not be taken for whole.
        (whole / SEAL_NAME).unlink(missing_ok=True)
        shutil.rmtree(whole, ignore_errors=True)
        part.rename(whole)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Tell a full or closed disk as such, also where a native writer has its own words for it.

        Raises:
            WorkError: the disk refused.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            raise self._refused(what, error.strerror or str(error)) from error
        except (RuntimeError, SafetensorError) as error:
            # torch's archive writer says "unexpected pos"; safetensors wraps the number in words of its own, and may
            # have removed what it wrote, so that the disk has room again.
            named = re.search(r"\(os error (\d+)\)", str(error))
            number = int(named[1]) if named else errno.ENOSPC if _is_full(self.folder) else None
            if number is None or number not in _REFUSALS:
                raise
            raise self._refused(what, os.strerror(number)) from error

    def _refused(self, what: str, reason: str) -> WorkError:
        return WorkError(
            f"{what} cannot write to {self.folder}: {reason}.",
            expected="a disk with room that this user may write to",
            action="free space, or choose an --out on another disk; the same command continues where this stopped",
        )

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the work folder itself, beside its place and renamed, so that what is there is whole."""
        part = self.folder / f"{name}.part"
        with self._writing("The build"):
            part.write_bytes(content)
            part.replace(self.folder / name)

    def _note(self, name: str, seconds: float, peak: int | None) -> None:
        self._record[name] = StageRecord(self._chain, round(seconds, 2), peak)
        self.write("stages.json", msgspec.json.format(msgspec.json.encode(self._record), indent=2))

    def _noted(self, name: str) -> str:
        """The digest of what a stage was last made from; empty where it was never finished."""
        return self._record[name].digest if name in self._record else ""

    def _read_record(self) -> dict[str, StageRecord]:
        try:
            return msgspec.json.decode((self.folder / "stages.json").read_bytes(), type=dict[str, StageRecord])
        except (OSError, msgspec.DecodeError):
            return {}  # a record that is missing or torn only means that stages run again

    @property
    def seconds(self) -> dict[str, float]:
        """Wall seconds by stage."""
        return {name: record.seconds for name, record in self._record.items()}

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Peak resident bytes by stage, of those that could be measured."""
        return {name: record.peak_bytes for name, record in self._record.items() if record.peak_bytes}


def _is_full(folder: Path) -> bool:
    """Whether not even a little more can be written; asked by writing, since free space says nothing of quotas."""
    probe = folder / ".probe"
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
    except OSError:
        return True
    finally:
        probe.unlink(missing_ok=True)
    return False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other build out of a work folder, which is made if need be; the main process does it for all.

    The system drops the lock when the process ends, however it ends: the file that stays behind locks nothing.

    Raises:
        WorkError: another build works there, or the folder cannot be made.
    """
    if not is_main():
        yield
        return
    lock = FileLock(folder / LOCK_NAME)
    with _making(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise WorkError(
                f"Another build is working in {folder}.",
                expected="one build at a time in a work folder",
                action="wait until it has ended, or choose another --out",
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _making(folder: Path) -> Iterator[None]:
    """Name the folder where the system refuses to make it.

    Raises:
        WorkError: it does.
    """
    try:
        yield
    except OSError as error:
        raise WorkError(f"The work folder {folder} cannot be made: {error.strerror}.") from error


def _forget(folder: Path) -> None:
    """Remove what earlier builds left, but for the rows, the log and the lock of this one."""
    for path in folder.iterdir():
        if path.name == ROWS_NAME:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (LOG_NAME, LOCK_NAME):
            path.unlink()
