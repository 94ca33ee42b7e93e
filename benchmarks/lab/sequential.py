"""False alarms and power of the sequential test of `edgetune compare --votes`, by simulation, peeked at each outcome.

python -m benchmarks.lab.sequential [--runs 2000] [--outcomes 2000]
"""

from __future__ import annotations

import argparse
import math

import click
import numpy as np

from edgetune.benchmarks.compare.sequential import blocks_of

NO_DIFFERENCE = [(0.5, 0.5), (0.5, 0.1), (0.1, 0.5), (0.9, 0.1), (0.02, 0.5)]
DIFFERENCES = [(0.5, 0.55), (0.5, 0.6), (0.5, 0.7), (0.8, 0.85), (0.8, 0.9)]
SHARES = (0.5, 0.1)


def decided(rates: tuple[float, float], share: float, runs: int, outcomes: int, seed: int = 0) -> list[int | None]:
    """After how many outcomes each run named a winner, None where it named none.

    Args:
        rates: of good outcomes, the control's and the arm's.
        share: of the outcomes that are the arm's.
        runs: how many.
        outcomes: of both arms, of each run.
        seed: of the draws.
    """
    random, needed = np.random.default_rng(seed), -math.log(0.05)
    ends: list[int | None] = []
    for _ in range(runs):
        is_arm = random.random(outcomes) < share
        good = random.random(outcomes) < np.where(is_arm, rates[1], rates[0])
        blocks = blocks_of(good, is_arm)
        reached = np.flatnonzero(blocks.log_wealth() >= needed)
        ends.append(int(blocks.ends[reached[0]]) if len(reached) else None)
    return ends


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--outcomes", type=int, default=2000)
    given = parser.parse_args()
    click.echo(f"{given.runs:,} runs of {given.outcomes:,} outcomes each, alpha 0.05\n")
    click.echo("| rate of both arms | share of the second | a winner was named |\n|---|---|---|")
    for rate, share in NO_DIFFERENCE:
        ends = decided((rate, rate), share, given.runs, given.outcomes)
        click.echo(f"| {rate} | {share} | {100 * np.mean([end is not None for end in ends]):.2f}% |")
    click.echo("\n| rates | share of the second | a winner was named | median outcomes until then |\n|---|---|---|---|")
    for rates in DIFFERENCES:
        for share in SHARES:
            ends = decided(rates, share, given.runs, given.outcomes)
            named = [end for end in ends if end is not None]
            found = f"{100 * len(named) / len(ends):.1f}%"
            median = f"{np.median(named):,.0f}" if named else ""
            click.echo(f"| {rates[0]} and {rates[1]} | {share} | {found} | {median} |")


if __name__ == "__main__":
    main()
