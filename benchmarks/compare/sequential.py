"""Which of two arms has the higher rate of good outcomes, by a test that may be looked at after every outcome.

A test for a fixed sample that is peeked at until it is significant is significant sooner or later whatever is true
(Johari, Pekelis, Walsh: "Peeking at A/B Tests", KDD 2017). Here outcomes are taken in blocks, so many of each arm in
the order in which they came; how many is settled by the traffic before the block. Of each block counts the difference
of the two shares of good outcomes. A bettor who starts with 1 and stakes on those differences being above or below a
value has, where it is their mean, a wealth that is a martingale: it ever reaches 1 / alpha with probability alpha or
less (Ville's inequality), at any number of outcomes and however rates drift together. The winner is named when the bet
against 0 has won that much; the values that no bet has refuted are a confidence sequence, an interval that holds at
all times at once (Waudby-Smith and Ramdas: "Estimating means of bounded random variables by betting", JRSS B 86, 2024;
Howard, Ramdas, McAuliffe, Sekhon: "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
Statistics 49, 2021). A mixture likelihood ratio, which needs no blocks, finds less (docs/log.md). Needs numpy
alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Flags = NDArray[np.bool_]

# The shares of the wealth that are staked, each in a bet of its own that starts with the same money.
STAKES = np.array([0.03, 0.06, 0.12, 0.25, 0.5, 0.75])
# Blocks until the sizes of blocks follow the traffic; then they are settled anew whenever the blocks have doubled.
_FIRST_BLOCKS = 8
_MOST_IN_BLOCK = 20
_BISECTIONS = 40


@dataclass(frozen=True)
class ArmCounts:
    """The outcomes of one arm, and how many of them were good."""

    name: str
    outcomes: int
    good: int

    @property
    def rate(self) -> float | None:
        """The share of good outcomes; None where there are none."""
        return self.good / self.outcomes if self.outcomes else None


@dataclass(frozen=True)
class SequentialVerdict:
    """An arm against the first one, after all outcomes so far.

    Attributes:
        control, arm: the counts of both.
        winner: the name of the better arm, None while nothing is decided; once named it stays.
        decided_at: the number of outcomes of both arms after which the winner was named.
        wealth: the most that the bet against equal rates has been worth so far.
        needed: 1 / alpha, at which the winner is named.
        interval: of the arm's rate minus the control's, which holds at all times at once.
    """

    control: ArmCounts
    arm: ArmCounts
    winner: str | None
    decided_at: int | None
    wealth: float
    needed: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Blocks:
    """Outcomes by blocks.

    Attributes:
        differences: of each block the share of good outcomes of the arm minus the control's, (blocks,) float64.
        ends: how many outcomes had come when each was full, (blocks,) int64.
    """

    differences: FloatArray
    ends: NDArray[np.int64]

    def log_wealth(self, value: float = 0.0) -> FloatArray:
        """Log of the wealth of who bets that the mean difference is not `value`, after each block: (blocks,) float64.

        `value` lies between -1 and 1.
        """
        stakes = np.concatenate([STAKES, -STAKES]) / (1 + abs(value))
        of_each = np.cumsum(np.log1p(stakes[:, None] * (self.differences - value)), axis=1)
        most = of_each.max(axis=0, initial=-np.inf)
        return np.asarray(most + np.log(np.exp(of_each - most).mean(axis=0)))


def blocks_of(good: Flags, is_arm: Flags) -> Blocks:
    """Outcomes, in the order in which they came, as blocks; what fills none is left out.

    Args:
        good: whether each outcome is good, (outcomes,) bool.
        is_arm: whether it is the arm's, and not the control's, (outcomes,) bool.
    """
    places = [np.flatnonzero(is_arm == side) for side in (False, True)]
    sums = [np.concatenate([[0], np.cumsum(good[which])]) for which in places]
    counts = [np.cumsum(is_arm == side) for side in (False, True)]
    used, done = [0, 0], 0
    differences, ends = [np.zeros(0)], [np.zeros(0, np.int64)]
    sizes, wanted = [1, 1], _FIRST_BLOCKS
    while True:
        room = min((len(places[side]) - used[side]) // sizes[side] for side in (0, 1))
        taken = min(room, wanted)
        if taken == 0:
            return Blocks(np.concatenate(differences), np.concatenate(ends))
        borders = [used[side] + sizes[side] * np.arange(taken + 1) for side in (0, 1)]
        shares = [np.diff(sums[side][borders[side]]) / sizes[side] for side in (0, 1)]
        differences.append(shares[1] - shares[0])
        ends.append(np.maximum(*(places[side][borders[side][1:] - 1] for side in (0, 1))) + 1)
        used, done = [int(border[-1]) for border in borders], done + taken
        # By the traffic until now, which says nothing of the outcomes to come.
        sizes = _block_sizes(*(int(count[ends[-1][-1] - 1]) for count in counts))
        wanted = done


def _block_sizes(control: int, arm: int) -> list[int]:
    """How many outcomes of each side a block takes: one of the rarer side."""
    sizes = (round(control / max(arm, 1)), round(arm / max(control, 1)))
    return [min(max(size, 1), _MOST_IN_BLOCK) for size in sizes]


def sequential_verdict(
    good: Sequence[bool], arms: Sequence[str], names: tuple[str, str], alpha: float = 0.05
) -> SequentialVerdict:
    """The verdict on two arms after outcomes in the order in which they came.

    Args:
        good: whether each outcome is good.
        arms: the arm of each outcome; those of other arms than `names` are left out.
        names: the control and the arm.
        alpha: the probability with which a winner may ever be named where there is none, above 0 and below 1.
    """
    pairs = [(bool(value), arm == names[1]) for value, arm in zip(good, arms, strict=True) if arm in names]
    values, is_arm = (np.array([pair[place] for pair in pairs], dtype=bool) for place in (0, 1))
    control, arm = (
        ArmCounts(name, int(side.sum()), int(values[side].sum()))
        for name, side in zip(names, (~is_arm, is_arm), strict=True)
    )
    return blocks_verdict(blocks_of(values, is_arm), control, arm, alpha)


def blocks_verdict(blocks: Blocks, control: ArmCounts, arm: ArmCounts, alpha: float = 0.05) -> SequentialVerdict:
    """The verdict on two arms whose outcomes are in blocks already."""
    wealth, needed = blocks.log_wealth(), -math.log(alpha)
    reached = np.flatnonzero(wealth >= needed)
    winner = decided_at = None
    if len(reached):
        decided_at = int(blocks.ends[reached[0]])
        winner = arm.name if blocks.differences[: reached[0] + 1].mean() > 0 else control.name
    most = math.exp(min(float(wealth.max(initial=0.0)), 700.0))
    return SequentialVerdict(control, arm, winner, decided_at, most, 1 / alpha, confidence_sequence(blocks, alpha))


def confidence_sequence(blocks: Blocks, alpha: float = 0.05) -> tuple[float, float]:
    """The mean differences that no bet has refuted at any time so far, from the lowest to the highest."""
    needed = -math.log(alpha)

    def refuted(value: float) -> bool:
        return bool(blocks.log_wealth(value).max(initial=0.0) >= needed)

    centre = float(blocks.differences.mean()) if len(blocks.differences) else 0.0
    low, high = (_edge(centre, end, refuted) for end in (-1.0, 1.0))
    return low, high


def _edge(inside: float, outside: float, refuted: Callable[[float], bool]) -> float:
    """Where between `inside` and `outside` refuting begins; `outside` where that is not refuted either."""
    if not refuted(outside):
        return outside
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
    return outside
