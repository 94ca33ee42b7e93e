"""Calls of several sides in turn, block by block: the core of every race. Needs the floor only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.benchmarks.timing.load import LoadMeter
from edgetune.benchmarks.timing.quiet import Conditions, TimingVerdict, judge_timing
from edgetune.benchmarks.timing.side import ContestantProcess
from edgetune.serve.cores import affinity_cores
from edgetune.tune.data.rows import Input

if TYPE_CHECKING:  # what training needs is not on the floor
    from edgetune.tune.training.progress import Progress

BLOCK, WARM_MS = 20, 50


@dataclass(frozen=True)
class TimedBlocks:
    """Calls of several sides in turn, by side.

    Attributes:
        ms: samples of each block.
        answers: what the head's `plain` gives, by input.
        cpu_share: median over blocks of processor time over wall time; only of sides that compute on the processor.
        others_cores: cores that other programs took meanwhile; None where unknown.
        threads: of the side with the most.
        cascades: names of the sides that are one.
    """

    ms: dict[str, list[list[float]]]
    answers: dict[str, dict[Input, Any]]
    cpu_share: dict[str, float]
    others_cores: float | None
    threads: int
    cascades: frozenset[str] = frozenset()

    def verdict(self, noise_ci95: Sequence[float] | None = None) -> TimingVerdict:
        """Whether the machine was quiet enough; `noise_ci95` as in `Conditions`."""
        return judge_timing(
            Conditions(
                # A cascade takes one of two times, so that its blocks differ by how many of their texts are easy.
                blocks={side: blocks for side, blocks in self.ms.items() if side not in self.cascades},
                cpu_share=self.cpu_share,
                others_cores=self.others_cores,
                cores=affinity_cores(),
                threads=self.threads,
                noise_ci95=noise_ci95,
            )
        )


def timed_blocks(
    sides: dict[str, ContestantProcess],
    texts: Sequence[Input],
    samples: int,
    progress: Progress,
    note: str = "latency, all sides in turn",
    block_size: int = BLOCK,
) -> TimedBlocks:
    """Time single calls of all sides; all of them answer a block before the next.

    The first calls after another side's turn find cold caches, sleeping threads of their own and threads of the other
    that still spin: each turn starts with `WARM_MS` of calls that are not counted.
    """
    source = itertools.cycle(texts)
    blocks: dict[str, list[list[float]]] = {side: [] for side in sides}
    answers: dict[str, dict[Input, Any]] = {side: {} for side in sides}
    shares: dict[str, list[float]] = {}
    load = LoadMeter(process.pid for process in sides.values())
    for done, block in enumerate(_blocks(source, samples, block_size), start=1):
        for side, process in sides.items():
            response = process.ask("latency", texts=block, warm_ms=WARM_MS)
            blocks[side].append(response["ms"])
            answers[side].update(zip(block, response["answers"], strict=True))
            if response.get("cpu_share") is not None:
                shares.setdefault(side, []).append(response["cpu_share"])
        progress.advance(done * block_size, samples, note)
    return TimedBlocks(
        ms=blocks,
        answers=answers,
        cpu_share={side: float(np.median(of_side)) for side, of_side in shares.items()},
        others_cores=load.others(),
        threads=max(process.threads for process in sides.values()),
        cascades=frozenset(side for side, process in sides.items() if process.is_cascade),
    )


def _blocks(source: Iterator[Input], samples: int, size: int) -> Iterator[list[Input]]:
    for _ in range(0, samples, size):
        yield list(itertools.islice(source, size))
