"""How much processor time others take while something is timed, from the kernel's own counters.

Others are all processes but those that are watched. What cannot be known is None, never 0.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgetune.serve.cores import PROC

# Columns of a cpu line in /proc/stat that are work: user, nice, system, irq, softirq, and steal, which is what other
# guests of the same host take. Guest time (columns 8 and 9) is part of user and nice already.
_BUSY = (0, 1, 2, 5, 6, 7)


@dataclass(frozen=True)
class _Counters:
    """Seconds since some fixed time: the clock's, all processors' work, and the work of each watched process."""

    wall: float
    busy: float
    watched: dict[int, float]


class LoadMeter:
    """Counts from its making on; `others` reads what others took since then, in cores."""

    def __init__(
        self, processes: Iterable[int], proc: Path = PROC, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Watch the `processes`, by their ids, and this one."""
        self._processes, self._proc, self._clock = [*processes, os.getpid()], proc, clock
        self._start = self._read()

    def others(self) -> float | None:
        """Cores that other processes took on average: 1.5 is one and a half; None where the system does not say.

        Without /proc the load average of the last minute stands in, which counts the runs of the watched ones too and
        is therefore lessened by one for each of them.
        """
        end = self._read()
        if self._start is None or end is None:
            return _by_load_average(len(self._processes))
        wall = end.wall - self._start.wall
        if wall <= 0 or end.busy <= self._start.busy:
            return None  # some containers show counters that never move
        own = sum(end.watched[process] - self._start.watched.get(process, 0.0) for process in end.watched)
        return max(0.0, (end.busy - self._start.busy - own) / wall)

    def _read(self) -> _Counters | None:
        busy = _busy_seconds(self._proc)
        if busy is None:
            return None
        each = {process: _process_seconds(self._proc, process) for process in self._processes}
        return _Counters(self._clock(), busy, {process: taken for process, taken in each.items() if taken is not None})


def _busy_seconds(proc: Path) -> float | None:
    """Work of the processors that this process may use, in seconds."""
    allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else None
    try:
        lines = [line.split() for line in (proc / "stat").read_text("utf-8").splitlines()]
    except OSError:
        return None
    rows = [
        [int(word) for word in words]
        for name, *words in (line for line in lines if line)
        if name.startswith("cpu") and name != "cpu" and (allowed is None or name in allowed)
    ]
    if not rows:
        return None
    return sum(row[column] for row in rows for column in _BUSY if column < len(row)) / _ticks_per_second()


def _process_seconds(proc: Path, process: int) -> float | None:
    """Processor time of all threads of a process, in user and kernel mode (fields 14 and 15 of its stat, proc(5))."""
    try:
        text = (proc / str(process) / "stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in brackets, which may hold blanks and brackets itself.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _ticks_per_second()


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")


def _by_load_average(processes: int) -> float | None:
    try:
        return max(0.0, os.getloadavg()[0] - processes)
    except (OSError, AttributeError):  # AttributeError: Windows has none
        return None
