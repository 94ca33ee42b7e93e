"""The gate: pass, fail or inconclusive, by a paired interval of the drop against what the recipe allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.prove.statistics import PairedDrop, paired_drop, rows_to_settle
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.tune.tasks.text_classification import METRICS


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one candidate.

    `gate` is the statistics' word; `accepted` whether the recipe lets the candidate be packed; `rows_needed` how
    many test rows would settle an inconclusive one, if drop and scatter stayed as they are.
    """

    gate: Literal["pass", "fail", "inconclusive"]
    accepted: bool
    drop: PairedDrop
    reason: str
    rows_needed: int | None = None


def judge(
    expected: NDArray[np.int64],
    reference: NDArray[np.int64],
    candidate: NDArray[np.int64],
    recipe: GateRecipe,
    *,
    structural: bool = False,
    looks: int = 1,
) -> Verdict:
    """Judge a candidate's answers against the tuned model's on the same rows; all arguments (rows,) class indices.

    Pass: the whole interval of the drop lies at or below `max_drop`. Fail: it lies wholly above. Between the two
    the rows are too few: accepted only if the recipe says so and the measured drop itself is within the limit.

    Args:
        expected, reference, candidate: the right, the tuned model's and the candidate's answers.
        recipe: what is allowed.
        structural: whether parts of the model were taken away; `when_inconclusive: auto` then rejects.
        looks: how many candidates have been judged on these rows, this one included. The interval is widened for
            them (Bonferroni): a second look at the test part has to prove more than the first.
    """
    confidence = 1 - (1 - recipe.confidence) / looks
    drop = paired_drop(METRICS[recipe.metric], expected, reference, candidate, confidence)
    low, high = drop.interval
    said = (
        f"{recipe.metric} drop {100 * drop.drop:+.2f} points, {100 * confidence:.4g}% interval "
        f"{100 * low:+.2f} to {100 * high:+.2f}, allowed {100 * recipe.max_drop:.2f}"
    )
    if high <= recipe.max_drop:
        return Verdict("pass", True, drop, said)
    if low > recipe.max_drop:
        return Verdict("fail", False, drop, said)
    rows = rows_to_settle(drop, recipe.max_drop, confidence)
    within = drop.drop <= recipe.max_drop
    policy = recipe.when_inconclusive
    if policy == "auto":
        policy = "reject" if structural else "accept"
    accepted = within and policy == "accept"
    return Verdict(
        "inconclusive",
        accepted,
        drop,
        f"{said}; {len(expected):,} rows cannot settle it"
        + (f", about {rows:,} would" if rows and rows > len(expected) else "")
        + _policy(within, accepted, recipe.when_inconclusive),
        rows,
    )


def unless_changed(verdict: Verdict) -> Verdict:
    """For a float graph whose parity is proven: the same answers on every row leave no drop to prove small."""
    if verdict.gate != "pass" and verdict.drop.deviation == 0 and verdict.drop.drop == 0:
        return Verdict("pass", True, verdict.drop, "the same answers as the tuned model on every row")
    return verdict


def _policy(within: bool, accepted: bool, said: str) -> str:
    if accepted:
        return f"; accepted, since the measured drop is within the limit (gate.when_inconclusive: {said})"
    if within:
        return f"; rejected (gate.when_inconclusive: {said})"
    return "; rejected, since the measured drop itself is above the limit"
