"""The gate: pass, fail or inconclusive, by a paired interval of what a candidate loses against what the recipe allows.

One judge for all tasks, over row statistics. Must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from edgetune.benchmarks.prove.statistics import PairedLoss, paired_loss, rows_that_bound, rows_to_settle
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.serve.errors import GateError
from edgetune.serve.report import SecondGate
from edgetune.tune.metrics import Metric, Statistics

GATES = ("pass", "inconclusive", "fail")  # from best to worst


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one candidate.

    `gate` is the statistics' word; `accepted` whether the recipe lets the candidate be packed; `loss` a drop of a score
    or a rise of an error, its interval widened for every look; `rows_needed` how many rows would settle an inconclusive
    one, if loss and scatter stayed as they are. `second` is the verdict by a second metric, which the first three
    fields take in already.
    """

    gate: Literal["pass", "fail", "inconclusive"]
    accepted: bool
    loss: PairedLoss
    reason: str
    rows_needed: int | None = None
    second: SecondGate | None = None


def judge(
    metric: Metric,
    reference: Statistics,
    candidate: Statistics,
    recipe: GateRecipe,
    *,
    structural: bool = False,
    looks: int = 1,
    agreement: float | None = None,
) -> Verdict:
    """Judge a candidate against the tuned model by row statistics (rows, k) float64 of the same rows in one order.

    Pass: the whole interval of the loss lies at or below the recipe's limit. Fail: it lies wholly above, or fewer
    answers than `min_agreement` agree. Between the two the rows are too few: accepted only if the recipe says so and
    the measured loss itself is within the limit. An error that is the same on every row passes: errors are real
    numbers, and models that differ at all do not give the same ones.

    Args:
        metric: what the statistics are of; a score's limit is `max_drop`, an error's `max_rise`.
        reference, candidate: statistics of the tuned model's and of the candidate's answers.
        recipe: what is allowed.
        structural: whether parts of the model were taken away; `when_inconclusive: auto` then rejects.
        looks: how many candidates have been judged on these rows, this one included. The interval is widened for
            them (Bonferroni): a second look at the test part has to prove more than the first.
        agreement: share of answers that are the tuned model's; needed where the recipe sets `min_agreement`.

    Raises:
        GateError: statistics are not finite or of other rows, there are none, or an agreement is asked for that was not
            measured.
        RecipeError: the recipe sets a limit that is none of this metric's.
    """
    _check(metric, reference, candidate, recipe, agreement)
    confidence = 1 - (1 - recipe.confidence) / looks
    limit, rows = recipe.limit(metric), len(reference)
    loss = paired_loss(metric, reference, candidate, confidence)
    if not metric.higher_is_better and np.array_equal(reference, candidate):
        same = Verdict("pass", True, loss, f"the same {metric.name} as the tuned model on every row")
        return _with_agreement(same, recipe, agreement)
    (low, high), is_bounded = loss.interval, metric.is_share or rows >= rows_that_bound(confidence)
    reason = _figures(metric, reference, candidate, loss, confidence, limit)
    if is_bounded and high <= limit:
        verdict = Verdict("pass", True, loss, reason)
    elif is_bounded and low > limit:
        verdict = Verdict("fail", False, loss, reason)
    else:
        policy = recipe.when_inconclusive
        if policy == "auto":
            policy = "reject" if structural else "accept"
        verdict = Verdict(
            "inconclusive",
            loss.loss <= limit and policy == "accept",
            loss,
            reason,
            rows_to_settle(loss, limit, confidence),
        )
        verdict = replace(verdict, reason=reason + _policy(metric, verdict, rows, limit, recipe))
    return _with_agreement(verdict, recipe, agreement)


def judge_answers(
    metric: Metric,
    expected: Any,
    reference: Any,
    candidate: Any,
    recipe: GateRecipe,
    *,
    second: Metric | None = None,
    structural: bool = False,
    is_float: bool = False,
    looks: int = 1,
) -> Verdict:
    """`judge` of answers: the right ones, the tuned model's and the candidate's, arrays with one entry a row.

    Answers agree where they are equal, which real numbers never are: there `gate.min_agreement` means nothing.

    Args:
        second: a metric whose loss has to hold too, within the same limit. Both must pass, so that neither interval
            is widened for the other (an intersection-union test, Berger, Technometrics 24, 1982).
        is_float: whether the candidate is a float graph whose parity is proven; see `unless_changed`.
    """
    before, after = np.asarray(reference), np.asarray(candidate)
    agreement = None
    if not np.issubdtype(before.dtype, np.floating):
        agreement = float(np.mean((before == after).reshape(len(before), -1).all(axis=1)))

    def by(metric: Metric, recipe: GateRecipe) -> Verdict:
        statistics = metric.pair(expected, reference, candidate)
        verdict = judge(metric, *statistics, recipe, structural=structural, looks=looks, agreement=agreement)
        return unless_changed(verdict) if is_float else verdict

    verdict = by(metric, recipe)
    if second is None:
        return verdict
    other = by(second, recipe.model_copy(update={"min_agreement": 0.0}))  # the first has looked at it
    return both(verdict, other, second.name, second.of(expected, candidate))


def both(first: Verdict, second: Verdict, name: str, value: float) -> Verdict:
    """The worse of two verdicts on one candidate; `name` and `value` are of the second's metric."""
    worst = max(first, second, key=lambda verdict: GATES.index(verdict.gate))
    needed = [verdict.rows_needed for verdict in (first, second) if verdict.gate == "inconclusive"]
    return Verdict(
        worst.gate,
        first.accepted and second.accepted,
        first.loss,
        first.reason if first.reason == second.reason else f"{first.reason}; {second.reason}",
        None if worst.gate != "inconclusive" or None in needed else max(filter(None, needed)),
        SecondGate(
            metric=name,
            value=value,
            drop=second.loss.loss,
            drop_interval=list(second.loss.interval),
            gate=second.gate,
        ),
    )


def unless_changed(verdict: Verdict) -> Verdict:
    """For a float graph whose parity is proven: the same answers on every row leave no loss to prove small."""
    if verdict.gate == "inconclusive" and verdict.loss.deviation == 0 and verdict.loss.loss == 0:
        return Verdict("pass", True, verdict.loss, "the same answers as the tuned model on every row")
    return verdict


def _check(
    metric: Metric, reference: Statistics, candidate: Statistics, recipe: GateRecipe, agreement: float | None
) -> None:
    if len(reference) == 0 or reference.shape != candidate.shape:
        raise GateError(
            f"The {metric.name} of a candidate is of {len(candidate):,} rows with {candidate.shape[-1]} statistics "
            f"each, the tuned model's of {len(reference):,} with {reference.shape[-1]}.",
            expected="the same rows of both, at least one",
        )
    for name, statistics in (("the tuned model", reference), ("the candidate", candidate)):
        broken = np.flatnonzero(~np.isfinite(statistics).all(axis=1))
        if len(broken):
            raise GateError(
                f"The {metric.name} of {name} is no finite number on {len(broken):,} of {len(statistics):,} rows; the "
                f"first is row {broken[0]}.",
                expected="finite outputs",
            )
        if not np.isfinite(metric.value(statistics.sum(axis=0))):
            raise GateError(f"The {metric.name} of {name} is no finite number over all {len(statistics):,} rows.")
    if recipe.min_agreement > 0 and agreement is None:
        raise GateError("gate.min_agreement is set, but the agreement was not measured.")


def _figures(
    metric: Metric, reference: Statistics, candidate: Statistics, paired: PairedLoss, confidence: float, limit: float
) -> str:
    """Loss, interval and limit: of a score in points, of an error in percent."""
    # To two places and no minus before zero.
    loss, low, high, allowed = (round(100 * number, 2) + 0.0 for number in (paired.loss, *paired.interval, limit))
    level = f"{100 * confidence:.4g}% interval"
    if metric.higher_is_better:
        return f"{metric.name} drop {loss:+.2f} points, {level} {low:+.2f} to {high:+.2f}, allowed {allowed:.2f}"
    before, after = (float(metric.value(statistics.sum(axis=0))) for statistics in (reference, candidate))
    return (
        f"{metric.name} {after:.4g} instead of {before:.4g}, rise {loss:+.2f}%, {level} {low:+.2f}% to {high:+.2f}%, "
        f"allowed {allowed:g}%"
    )


def _policy(metric: Metric, verdict: Verdict, rows: int, limit: float, recipe: GateRecipe) -> str:
    """What an inconclusive verdict leads to, and why."""
    needed, word = verdict.rows_needed, "drop" if metric.higher_is_better else "rise"
    setting = f"(gate.when_inconclusive: {recipe.when_inconclusive})"
    if verdict.accepted:
        outcome = f"accepted, since the measured {word} is within the limit {setting}"
    elif verdict.loss.loss <= limit:
        outcome = f"rejected {setting}"
    else:
        outcome = f"rejected, since the measured {word} itself is above the limit"
    more = f", about {needed:,} would" if needed and needed > rows else ""
    return f"; {rows:,} rows cannot settle it{more}; {outcome}"


def _with_agreement(verdict: Verdict, recipe: GateRecipe, agreement: float | None) -> Verdict:
    """The second condition: so many answers must agree, whatever the metric says."""
    if recipe.min_agreement <= 0 or agreement is None:
        return verdict
    measured = f"agreement {100 * agreement:.2f}%, at least {100 * recipe.min_agreement:g}% is required"
    reason = f"{verdict.reason}; {measured}"
    if agreement >= recipe.min_agreement:
        return replace(verdict, reason=reason)
    return Verdict("fail", False, verdict.loss, reason)
