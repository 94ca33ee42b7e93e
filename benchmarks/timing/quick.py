"""Quick timing of candidates against each other: fresh processes, the same texts in turn, no PyTorch beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.benchmarks.timing.blocks import BLOCK, timed_blocks
from edgetune.benchmarks.timing.samples import flat, summarize
from edgetune.benchmarks.timing.side import ContestantProcess, Side
from edgetune.serve.report import LatencySummary
from edgetune.tune.data.rows import Input

if TYPE_CHECKING:  # what training needs is not on the floor
    from edgetune.tune.training.progress import Progress

SAMPLES = 200
# Means closer than this are a tie, and so are those whose ratio's interval does not leave 1: the smaller bundle wins.
TIE = 0.05


@dataclass(frozen=True)
class QuickFigures:
    """What a short look at one candidate gives; memory is None where the system has no such counter.

    `timing_valid` is False where the machine was too busy for times to be compared.
    """

    latency_ms: LatencySummary
    cold_start_ms: float
    rss_peak_bytes: int | None
    timing_valid: bool = True

    @property
    def blocks(self) -> list[list[float]]:
        """The samples by turn, as they were taken."""
        samples = self.latency_ms.samples
        return [samples[start : start + BLOCK] for start in range(0, len(samples), BLOCK)]

    @property
    def p50_ms(self) -> float:
        """Median latency."""
        assert self.latency_ms.p50 is not None  # SAMPLES bound it
        return self.latency_ms.p50

    @property
    def mean_ms(self) -> float:
        """Mean latency, which candidates are compared by: the median of a cascade tells of its small model alone."""
        return self.latency_ms.mean


def quick_race(
    sides: Mapping[str, Side], texts: Sequence[Input], progress: Progress, samples: int = SAMPLES
) -> dict[str, QuickFigures]:
    """Time `sides` on `texts`, block by block in turn.

    Raises:
        EdgetuneError: a side's process ended; its last line of error output is told.
    """
    with ExitStack() as stack:
        running = {name: stack.enter_context(ContestantProcess(side, texts[0])) for name, side in sides.items()}
        timed = timed_blocks(running, texts, samples, progress)
        verdict = timed.verdict()
        if not verdict.valid:
            progress.say(verdict.remark)
        memory = {name: process.ask("memory")["memory"]["rss_peak_bytes"] for name, process in running.items()}
        return {
            name: QuickFigures(summarize(flat(timed.ms[name])), process.cold_start_ms, memory[name], verdict.valid)
            for name, process in running.items()
        }
