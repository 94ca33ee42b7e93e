"""How long both sides of a comparison take for single inputs, in turn and in this process.

Not the race of a build, which runs each side in a process of its own: an address is no process here, and of two bundles
the ratio of calls in turn says which is faster. Blocks are told by their own medians, and where the machine was too
busy nothing is said of speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgetune.benchmarks.timing.load import LoadMeter
from edgetune.benchmarks.timing.quiet import Conditions, judge_timing
from edgetune.benchmarks.timing.samples import flat, ratio_interval
from edgetune.serve.cores import affinity_cores, usable_cores

BLOCK, WARM_CALLS, LEAST_BLOCKS = 10, 2, 3


@dataclass(frozen=True)
class Speed:
    """Single calls of both sides in turn.

    Attributes:
        a_ms, b_ms: the median call.
        times_as_fast: how many times as fast B is as A, by the medians.
        times_as_fast_ci95: 95% bootstrap interval over blocks; None of too few blocks.
        calls: of each side.
        remark: why the machine was too busy to judge; empty where it was not.
    """

    a_ms: float
    b_ms: float
    times_as_fast: float
    times_as_fast_ci95: list[float] | None
    calls: int
    remark: str


def timed(sides: Sequence[Callable[[Any], object]], inputs: Sequence[Any], calls: int) -> Speed | None:
    """Time both sides on the same inputs, block by block; None where `calls` are too few for a block."""
    blocks: list[list[list[float]]] = [[], []]
    load = LoadMeter(())
    for number in range(calls // BLOCK):
        block = [inputs[(number * BLOCK + place) % len(inputs)] for place in range(BLOCK)]
        for side, answer in enumerate(sides):
            for given in block[:WARM_CALLS]:
                answer(given)
            blocks[side].append([_ms(answer, given) for given in block])
    if not blocks[0]:
        return None
    a, b = (float(np.median(flat(of_side))) for of_side in blocks)
    conditions = Conditions(
        blocks={"A": blocks[0], "B": blocks[1]},
        cpu_share={},
        others_cores=load.others(),
        cores=affinity_cores(),
        threads=usable_cores(),
    )
    interval = ratio_interval(blocks[0], blocks[1]) if len(blocks[0]) >= LEAST_BLOCKS else None
    return Speed(a, b, a / b, interval, len(blocks[0]) * BLOCK, judge_timing(conditions).remark)


def _ms(answer: Callable[[Any], object], given: Any) -> float:
    start = time.perf_counter()
    answer(given)
    return 1000 * (time.perf_counter() - start)
