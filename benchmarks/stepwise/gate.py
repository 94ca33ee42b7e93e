"""The gate of language models: pass, fail or inconclusive, by a paired interval of the relative rise of perplexity.

Stands apart from gate.py of the classifiers, whose drop is one of shares; here rows weigh by their tokens, and what is
judged is a ratio of sums. Must not import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from edgetune.benchmarks.stepwise.recipe import GenerationGateRecipe
from edgetune.serve.errors import GateError

BOOTSTRAPS = 10_000
_DRAWN_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class RowSums:
    """What a model gives the answers of each row.

    Attributes:
        nats: minus the log-probability of the row's scored tokens, (rows,) float64.
        tokens: how many were scored, (rows,) integers of at least 1.
    """

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]

    @property
    def perplexity(self) -> float:
        """exp of the mean over all tokens; inf where that is beyond a double."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.nats.sum() / self.tokens.sum()))


@dataclass(frozen=True)
class RiseVerdict:
    """What the gate says of one candidate.

    `gate` is the statistics' word; `accepted` whether the recipe lets the candidate be packed; `rise` the relative
    rise of perplexity, 0.02 for two percent; `interval` its two-sided interval at the gate's confidence, widened for
    every look; `rows_needed` how many rows would settle an inconclusive one, if rise and scatter stayed as they are.
    """

    gate: Literal["pass", "fail", "inconclusive"]
    accepted: bool
    rise: float
    interval: tuple[float, float]
    reason: str
    rows_needed: int | None = None


def judge_rise(
    reference: RowSums,
    candidate: RowSums,
    recipe: GenerationGateRecipe,
    *,
    agreement: float | None = None,
    looks: int = 1,
) -> RiseVerdict:
    """Judge a candidate's perplexity against the tuned model's on the same rows.

    Pass: the whole interval of the rise lies at or below `max_rise`. Fail: it lies wholly above, or fewer tokens than
    `min_agreement` agree. Between the two the rows are too few: accepted only if the recipe says so and the measured
    rise itself is within the limit. A candidate that gives every row the same sum as the reference passes.

    Args:
        reference: the tuned model's sums.
        candidate: the candidate's, of the same rows in the same order.
        recipe: what is allowed.
        agreement: share of tokens whose likeliest successor is the tuned model's; needed where the recipe sets one.
        looks: how many candidates have been judged on these rows, this one included: the interval is widened for
            them (Bonferroni).

    Raises:
        GateError: a sum is not finite, the rows or their tokens differ, or an agreement is asked for and not given.
    """
    _check(reference, candidate, recipe, agreement)
    confidence = 1 - (1 - recipe.confidence) / looks
    if np.array_equal(reference.nats, candidate.nats):
        said = "the same probability as by the tuned model for every row"
        return _unless_disagreeing(RiseVerdict("pass", True, 0.0, (0.0, 0.0), said), recipe, agreement)
    differences = candidate.nats - reference.nats
    rise = _rise(float(differences.sum()) / float(reference.tokens.sum()))
    low, high = rise_interval(differences, reference.tokens, confidence)
    said = (
        f"perplexity {candidate.perplexity:.4g} instead of {reference.perplexity:.4g}, rise {100 * rise:+.2f}%, "
        f"{100 * confidence:.4g}% interval {100 * low:+.2f}% to {100 * high:+.2f}%, allowed {100 * recipe.max_rise:g}%"
    )
    rows, enough = len(differences), rows_that_bound(confidence)
    if rows >= enough and high <= recipe.max_rise:
        verdict = RiseVerdict("pass", True, rise, (low, high), said)
    elif rows >= enough and low > recipe.max_rise:
        verdict = RiseVerdict("fail", False, rise, (low, high), said)
    else:
        needed = rows_to_settle(differences, reference.tokens, recipe.max_rise, confidence)
        verdict = _inconclusive(said, rise, (low, high), rows, needed, recipe)
    return _unless_disagreeing(verdict, recipe, agreement)


def rise_interval(
    differences: NDArray[np.float64], tokens: NDArray[np.int64], confidence: float, seed: int = 0
) -> tuple[float, float]:
    """Two-sided interval of exp(sum of differences / sum of tokens) - 1 over rows drawn whole, in pairs.

    The bias-corrected and accelerated bootstrap (Efron, Better Bootstrap Confidence Intervals, JASA 82, 1987), since
    a few rows often carry most of a rise; its normal quantiles are those of Student's t, widened by
    sqrt(rows / (rows - 1)), because resampling n rows understates their scatter (Hesterberg, What Teachers Should
    Know About the Bootstrap, The American Statistician 69, 2015).

    Args:
        differences: the candidate's nats minus the reference's, (rows,) float64.
        tokens: scored tokens of each row, (rows,) integers.
        confidence: 0.95 for 95%.
        seed: of the draws.
    """
    rows = len(differences)
    # The ratio is drawn, its exponential taken at the ends: an interval of ranks goes through unchanged.
    found = float(differences.sum()) / float(tokens.sum())
    drawn = _drawn_ratios(differences, tokens, seed)
    if rows < 2 or np.ptp(drawn) <= 1e-12 * max(1.0, abs(found)):
        return _rise(found), _rise(found)
    below = (np.mean(drawn < found) + np.mean(drawn <= found)) / 2
    bias = float(stats.norm.ppf(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn))))
    without = (differences.sum() - differences) / (tokens.sum() - tokens)
    away = without.mean() - without
    spread = float((away**2).sum()) ** 1.5
    acceleration = float((away**3).sum()) / (6 * spread) if spread > 0 else 0.0
    wide = math.sqrt(rows / (rows - 1)) * float(stats.t.ppf(0.5 + confidence / 2, rows - 1))
    ends = [float(stats.norm.cdf(bias + (bias + z) / max(1 - acceleration * (bias + z), 1e-3))) for z in (-wide, wide)]
    low, high = np.quantile(drawn, ends)
    return _rise(float(low)), _rise(float(high))


def _drawn_ratios(differences: NDArray[np.float64], tokens: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Nats a token of `BOOTSTRAPS` draws of as many rows as there are, with replacement."""
    random, rows = np.random.default_rng(seed), len(differences)
    at_once = max(1, _DRAWN_AT_ONCE // rows)
    parts = []
    for start in range(0, BOOTSTRAPS, at_once):
        draws = random.integers(0, rows, (min(at_once, BOOTSTRAPS - start), rows))
        parts.append(differences[draws].sum(axis=1) / tokens[draws].sum(axis=1))
    return np.concatenate(parts)


def rows_that_bound(confidence: float) -> int:
    """The fewest rows whose extremes hold the middle of their distribution with the confidence: 6 for 95%.

    Each row lies on either side of it as a coin falls, so that n rows all lie on one side with 2^(1 - n). No interval
    that is drawn from fewer rows can keep its word, whatever their scatter.
    """
    return 1 + math.ceil(-math.log2(1 - confidence))


def rows_to_settle(
    differences: NDArray[np.float64], tokens: NDArray[np.int64], max_rise: float, confidence: float
) -> int | None:
    """Rows after which the interval would lie on one side of `max_rise`, if rise and scatter stay as they are.

    By the normal approximation of a ratio of sums (Cochran, Sampling Techniques, 1977, section 6.4). None where the
    rise is so close to the limit that no data set settles it.
    """
    found = float(differences.sum()) / float(tokens.sum())
    distance = abs(math.log1p(max_rise) - found)
    if distance < 1e-9 or len(differences) < 2:
        return None
    deviation = float(np.std(differences - found * tokens, ddof=1)) / float(tokens.mean())
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    return max(rows_that_bound(confidence), math.ceil((z * deviation / distance) ** 2))


def _rise(nats: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.expm1(nats))


def _check(reference: RowSums, candidate: RowSums, recipe: GenerationGateRecipe, agreement: float | None) -> None:
    if len(reference.nats) == 0 or not np.array_equal(reference.tokens, candidate.tokens):
        raise GateError(
            f"A candidate was scored on {len(candidate.nats):,} rows of {int(candidate.tokens.sum()):,} tokens, the "
            f"tuned model on {len(reference.nats):,} of {int(reference.tokens.sum()):,}.",
            expected="the same rows and tokens, at least one",
        )
    for name, sums in (("the tuned model", reference), ("the candidate", candidate)):
        broken = np.flatnonzero(~np.isfinite(sums.nats))
        if len(broken):
            raise GateError(
                f"The probability that {name} gives {len(broken):,} of {len(sums.nats):,} rows is no finite number; "
                f"the first is row {broken[0]}.",
                expected="finite logits",
            )
    if recipe.min_agreement > 0 and agreement is None:
        raise GateError("gate.min_agreement is set, but the agreement was not measured.")


def _inconclusive(
    said: str, rise: float, interval: tuple[float, float], rows: int, needed: int | None, recipe: GenerationGateRecipe
) -> RiseVerdict:
    within = rise <= recipe.max_rise
    accepted = within and recipe.when_inconclusive == "accept"
    policy = f"(gate.when_inconclusive: {recipe.when_inconclusive})"
    if accepted:
        then = f"accepted, since the measured rise is within the limit {policy}"
    elif within:
        then = f"rejected {policy}"
    else:
        then = "rejected, since the measured rise itself is above the limit"
    more = f", about {needed:,} would" if needed and needed > rows else ""
    reason = f"{said}; {rows:,} rows cannot settle it{more}; {then}"
    return RiseVerdict("inconclusive", accepted, rise, interval, reason, needed)


def _unless_disagreeing(verdict: RiseVerdict, recipe: GenerationGateRecipe, agreement: float | None) -> RiseVerdict:
    """The second condition: so many tokens must agree, whatever the perplexity says."""
    if recipe.min_agreement <= 0 or agreement is None:
        return verdict
    least = f"{100 * recipe.min_agreement:g}%"
    if agreement >= recipe.min_agreement:
        reason = f"{verdict.reason}; {100 * agreement:.2f}% of tokens agree, {least} must"
        return RiseVerdict(verdict.gate, verdict.accepted, verdict.rise, verdict.interval, reason, verdict.rows_needed)
    reason = f"{verdict.reason}; only {100 * agreement:.2f}% of tokens agree, {least} must"
    return RiseVerdict("fail", False, verdict.rise, verdict.interval, reason)
