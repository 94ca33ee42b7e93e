"""Calls without a pause: whether the same inputs take longer once the processor is warm. Needs the floor only."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune.benchmarks.measure.measurement import Drift

if TYPE_CHECKING:  # what training needs is not on the floor
    from edgetune.tune.training.progress import Progress

SYS = Path("/sys")
LEAST_ROUNDS = 5


def measure_drift(run: Callable[[], float], seconds: float, progress: Progress, sys: Path = SYS) -> Drift:
    """Rounds without a pause for so many seconds, and five at least.

    Args:
        run: one round, the same work each time; gives its mean ms.
        seconds: of all rounds together.
        progress: tells how far it is.
        sys: where the system tells temperatures and clocks.
    """
    celsius, mhz = hottest_celsius(sys), fastest_mhz(sys)
    run()  # the first round after other work is no measure of warmth
    began, times = time.monotonic(), list[float]()
    while (elapsed := time.monotonic() - began) < seconds or len(times) < LEAST_ROUNDS:
        times.append(run())
        progress.advance(min(int(elapsed), int(seconds)), max(1, int(seconds)), "drift, calls without a pause")
    fifth = max(1, len(times) // 5)
    first, last = float(np.median(times[:fifth])), float(np.median(times[-fifth:]))
    return Drift(
        seconds=round(time.monotonic() - began, 1),
        rounds=len(times),
        first_ms=first,
        last_ms=last,
        slower=last / first,
        celsius_before=celsius,
        celsius_after=hottest_celsius(sys),
        mhz_before=mhz,
        mhz_after=fastest_mhz(sys),
    )


def hottest_celsius(sys: Path = SYS) -> float | None:
    """The hottest of the system's thermal zones in degrees Celsius; None where it has none that make sense."""
    readings = [value / 1000 for value in _numbers(sys / "class" / "thermal", "thermal_zone*/temp")]
    return max((value for value in readings if 0 < value < 150), default=None)


def fastest_mhz(sys: Path = SYS) -> float | None:
    """The clock of the fastest core in MHz; None where the system does not say."""
    clocks = _numbers(sys / "devices" / "system" / "cpu", "cpu*/cpufreq/scaling_cur_freq")
    return max((value / 1000 for value in clocks), default=None)


def _numbers(folder: Path, pattern: str) -> list[int]:
    numbers = []
    for path in folder.glob(pattern):
        try:
            numbers.append(int(path.read_text("ascii").strip()))
        except (OSError, ValueError):
            continue
    return numbers
