"""Whether the machine was quiet enough for a verdict on speed.

On a busy machine a race gives figures that are wrong by orders of magnitude and yet agree with each other: threads
that wait for one another are descheduled one at a time, call after call, and the interval stays narrow. So four things
are asked that the ratio itself does not show; each limit leaves room for what an idle machine does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# A side that computes keeps at least one thread on a processor; idle machines give 0.97 and more.
LEAST_CPU_SHARE = 0.8
# Share of a side's threads that others may leave without a core of their own: half a core of two.
MOST_CROWDING = 0.25
# The bundle against a second copy of itself: how far from 1 its ratio may lie, and how wide its interval may be.
MOST_NOISE, MOST_WIDTH = 0.1, 1.5
# How far apart the ratios of a side's blocks may lie (90th over 10th percentile).
MOST_SPREAD = 2.5


@dataclass(frozen=True)
class TimingVerdict:
    """Whether speed could be judged; `remark` says why not, in a sentence, and is empty where it could."""

    valid: bool
    remark: str = ""


@dataclass(frozen=True)
class Conditions:
    """What is known of the time in which sides were timed. None, or an absent entry, is not known.

    Attributes:
        blocks: samples in ms by side and block; all sides answered the same in a block.
        cpu_share: by side, processor time of all its threads over wall time in the timed calls; only of sides that
            compute on the processor.
        others_cores: cores that other programs took on average.
        cores: cores that this process may use.
        threads: of the side with the most.
        noise_ci95: 95% interval of the ratio of the bundle and a second copy of itself.
    """

    blocks: Mapping[str, Sequence[Sequence[float]]]
    cpu_share: Mapping[str, float]
    others_cores: float | None
    cores: int
    threads: int
    noise_ci95: Sequence[float] | None = None


def judge_timing(conditions: Conditions) -> TimingVerdict:
    """The verdict on a race, with every reason against it."""
    reasons = [*_starved(conditions), *_crowded(conditions), *_noisy(conditions), *_uneven(conditions)]
    if not reasons:
        return TimingVerdict(True)
    return TimingVerdict(False, f"The machine was too busy to judge speed: {'; '.join(reasons)}.")


def _starved(conditions: Conditions) -> list[str]:
    return [
        f"the {side} got a processor for {100 * share:.0f}% of the time that its calls took"
        for side, share in conditions.cpu_share.items()
        if share < LEAST_CPU_SHARE
    ]


def _crowded(conditions: Conditions) -> list[str]:
    others, threads, cores = conditions.others_cores, conditions.threads, conditions.cores
    if others is None or (others + threads - cores) / threads <= MOST_CROWDING:
        return []
    return [f"other programs took {others:.1f} of {cores} cores while {threads} threads were timed"]


def _noisy(conditions: Conditions) -> list[str]:
    if conditions.noise_ci95 is None:
        return []
    low, high = conditions.noise_ci95
    if low <= 1 + MOST_NOISE and high >= 1 / (1 + MOST_NOISE) and high <= MOST_WIDTH * low:
        return []
    return [f"the bundle raced against a copy of itself came out {low:.2f} to {high:.2f} times as fast"]


def _uneven(conditions: Conditions) -> list[str]:
    """Blocks are held against the same block of all sides, for their texts may be longer or shorter."""
    if len(conditions.blocks) < 2:
        return []
    medians = {side: np.array([np.median(block) for block in blocks]) for side, blocks in conditions.blocks.items()}
    level = np.exp(np.mean([np.log(values) for values in medians.values()], axis=0))  # (blocks,) geometric mean
    reasons = []
    for side, values in medians.items():
        low, high = np.percentile(values / level, [10, 90])
        if high > MOST_SPREAD * low:
            reasons.append(f"blocks of the {side} differed {high / low:.1f} times from each other")
    return reasons
