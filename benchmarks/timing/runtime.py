"""The settings that a bundle is best run with on this machine, by measurement: threads, and whether they spin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.benchmarks.timing.quick import TIE, quick_race
from edgetune.benchmarks.timing.side import Side
from edgetune.serve.bundle import RuntimeSettings
from edgetune.serve.cores import usable_cores
from edgetune.serve.processor import cpu_name
from edgetune.tune.data.rows import Input

if TYPE_CHECKING:  # what training needs is not on the floor
    from edgetune.tune.training.progress import Progress


def measure_settings(
    bundle: Path, texts: Sequence[Input], progress: Progress, *, threads: int | None = None
) -> tuple[RuntimeSettings, dict[str, float]]:
    """The fastest settings at batch 1, and the p50 in ms of each that was tried.

    Of settings that tie the one with more threads is taken, which large batches gain by, and of two with as many the
    one without spinning, which leaves the processor to others. On a machine too busy to tell, all of them tie.

    Args:
        bundle: a draft.
        texts: what is answered.
        progress: tells how far it is.
        threads: the only number of threads to try; None tries from one to all usable cores.
    """
    cores = usable_cores()
    tried = {
        f"{n} threads{'' if spins else ', not spinning'}": (n, spins) for n, spins in settings_to_try(cores, threads)
    }
    sides = {name: Side("bundle", bundle, threads=n, spinning=spins) for name, (n, spins) in tried.items()}
    figures = quick_race(sides, texts, progress) if len(sides) > 1 else {}
    p50 = {name: timed.p50_ms for name, timed in figures.items() if timed.timing_valid}
    fastest = min(p50.values(), default=0.0)
    tied = [pair for name, pair in tried.items() if not p50 or p50[name] <= fastest * (1 + TIE)]
    best_threads, spins = max(tied, key=lambda pair: (pair[0], not pair[1]))
    settings = RuntimeSettings(threads=best_threads, spinning=spins, cpu=cpu_name(), cores=cores)
    return settings, p50


def setting_name(threads: int, spinning: bool) -> str:
    """What a report calls a setting."""
    return f"{threads} threads{'' if spinning else ', not spinning'}"


def settings_to_try(cores: int, threads: int | None) -> list[tuple[int, bool]]:
    """Threads and spinning to try: 1, 2, 4, ... up to the cores; a single thread waits for nobody."""
    numbers = [threads] if threads else sorted({2**power for power in range(cores.bit_length())} | {cores})
    return [
        (n, spins) for n in numbers if n <= max(cores, threads or 0) for spins in ((True, False) if n > 1 else (True,))
    ]
