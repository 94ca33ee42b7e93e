"""The choice among candidates that passed: budget, the fastest, ties towards the smaller, and why in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from edgetune.benchmarks.recipe import CommonBudgetRecipe
from edgetune.benchmarks.timing.quick import TIE, QuickFigures
from edgetune.benchmarks.timing.samples import ratio_interval
from edgetune.compress.route import CASCADE_MARK
from edgetune.serve.errors import GateError
from edgetune.serve.report import CandidateReport, Gain
from edgetune.tune.metrics import Metric

# What answers that do not depend on their neighbours in a batch may cost, as a share of the mean.
INDEPENDENCE = 0.1
# Limits that a figure has to reach; it has to stay within all others.
_LEAST = frozenset({"tokens_per_second"})
# Limits of speed: a busy machine measures none of them.
_SPEED = frozenset({"p90_ms", "cold_start_ms", "first_token_ms", "tokens_per_second"})


def over_budget(budget: CommonBudgetRecipe, measured: Mapping[str, float | None], *, timing_valid: bool = True) -> str:
    """What of a candidate does not meet the budget, as a sentence part; empty where all is met or nothing is asked.

    Args:
        budget: the limits.
        measured: figures by the limits' names; None for what could not be measured, which never meets a limit. What is
            not among them is not due yet.
        timing_valid: False where the machine was too busy to judge speed, so that no limit of speed is met.
    """
    parts = []
    for name, figure in measured.items():
        limit = budget.limits.get(name)
        if limit is None:
            continue
        if name in _SPEED and not timing_valid:
            parts.append(f"{name} was not measured on a quiet machine, the budget {limit:.4g}")
        elif figure is None:
            parts.append(f"{name} was not measured, the budget {limit:.4g}")
        elif figure < limit if name in _LEAST else figure > limit:
            parts.append(f"{name} is {figure:.4g}, the budget {limit:.4g}")
    return "; ".join(parts)


def check_budget(
    chosen: str,
    budget: CommonBudgetRecipe,
    measured: Mapping[str, float | None],
    report: Path,
    *,
    timing_valid: bool = True,
) -> None:
    """Check a whole bundle; arguments as for `over_budget`, where a limit that is not among `measured` is not met.

    Raises:
        GateError: the budget is not met; the report is at `report`.
    """
    due = {**measured, **{name: None for name in budget.limits if name not in measured}}
    over = over_budget(budget, due, timing_valid=timing_valid)
    if over:
        raise GateError(
            f"The {chosen} candidate is over budget: {over}.",
            action=f"see {report}; raise the budget, or tune a smaller base",
        )


def megabytes(size_bytes: float | None) -> float | None:
    """A size as budgets have it, None where it was not measured."""
    return None if size_bytes is None else size_bytes / 1e6


def quick_figures(bundle_bytes: int, figures: QuickFigures | None) -> dict[str, float | None]:
    """A candidate's figures by the names of a budget; of one that was not timed yet the size alone.

    Times of a busy machine are left out and so shut nobody out: the bench stage, which can be run again, judges them.
    """
    measured: dict[str, float | None] = {"size_mb": bundle_bytes / 1e6}
    if figures is not None:
        measured["rss_mb"] = megabytes(figures.rss_peak_bytes)
        if figures.timing_valid:
            measured |= {"p90_ms": figures.latency_ms.p90, "cold_start_ms": figures.cold_start_ms}
    return measured


def preference(
    figures: Mapping[str, QuickFigures],
    sizes: Mapping[str, int],
    dependent: Set[str] = frozenset(),
    losses: Mapping[str, float] | None = None,
) -> list[str]:
    """The candidates, best first: the smallest of those within a tie of the fastest, then the same of the rest.

    Of those whose sizes lie within a tie too, that of the least loss is taken where `losses` are given: two cascades
    before one graph differ by a few bytes, and by what they answer.

    The fastest is that of the least mean. A median would be that of the small model wherever it answers more than half
    of the texts, however long the others take; of a single model both say the same.

    Where the machine was too busy for one of the times to mean anything, the smaller is better, and a cascade stands
    before its own strong model: it runs the same graph, and that for fewer texts. A candidate among
    `dependent`, whose answers depend on their neighbours in a batch, stands behind those whose answers do not, unless
    it is better by more than INDEPENDENCE.
    """
    if not all(timed.timing_valid for timed in figures.values()):
        cost = {name: size * (1 + INDEPENDENCE * (name in dependent)) for name, size in sizes.items()}
        return sorted(figures, key=lambda name: _unmeasured_rank(name, cost))
    left, ordered = dict(figures), []
    while left:
        fastest = _fastest(left, dependent)
        tied = [name for name, one in left.items() if is_tie(one, fastest)]
        tied = [name for name in tied if name not in dependent] or tied
        least = min(sizes[name] for name in tied)
        near = {name: losses[name] if losses and sizes[name] <= least * (1 + TIE) else np.inf for name in tied}
        best = min(tied, key=lambda name: (near[name], sizes[name], name))
        ordered.append(best)
        del left[best]
    return ordered


def _unmeasured_rank(name: str, cost: Mapping[str, float]) -> tuple[float, bool, str]:
    """Where a candidate stands that was not timed, by costs in bytes."""
    strong = name.rpartition(CASCADE_MARK)[2]
    return cost.get(strong, cost[name]), strong == name, name


def _fastest(figures: Mapping[str, QuickFigures], dependent: Set[str]) -> QuickFigures:
    """The fastest candidate, or the fastest of those that are not `dependent` where that costs little."""
    fastest = min(figures.values(), key=lambda timed: timed.mean_ms)
    bound = fastest.mean_ms * (1 + INDEPENDENCE)
    near = [timed for name, timed in figures.items() if name not in dependent and timed.mean_ms <= bound]
    return min(near, key=lambda timed: timed.mean_ms, default=fastest)


def is_tie(one: QuickFigures, fastest: QuickFigures) -> bool:
    """Whether the difference of two means is small, or within what the machine's noise makes."""
    if one.mean_ms <= fastest.mean_ms * (1 + TIE):
        return True
    low, _ = ratio_interval(one.blocks, fastest.blocks, centre=np.mean)
    return low <= 1


def dominated(
    name: str, figures: Mapping[str, QuickFigures], sizes: Mapping[str, int], dependent: Set[str] = frozenset()
) -> str:
    """The name of a candidate that is both smaller and faster, beyond a tie; empty where there is none.

    One that is `dependent` has to be faster by more than INDEPENDENCE than one that is not.
    """
    if not all(timed.timing_valid for timed in figures.values()):
        return ""
    mine = figures[name]
    better = (
        other
        for other, one in figures.items()
        if sizes[other] < sizes[name]
        and one.mean_ms * (1 + INDEPENDENCE * (other in dependent and name not in dependent)) < mine.mean_ms
        and not is_tie(mine, one)
    )
    return next(better, "")


def on_front(candidates: Sequence[CandidateReport], metric: Metric) -> set[str]:
    """Candidates that no other one beats in the metric while being no slower, and the other way round."""
    timed = [one for one in candidates if one.latency_ms is not None]
    return {one.scheme for one in timed if not any(_beats(other, one, metric) for other in timed)}


def _beats(one: CandidateReport, other: CandidateReport, metric: Metric) -> bool:
    first, second = _mean_ms(one), _mean_ms(other)
    is_better = metric.is_better(one.value, other.value)
    return (is_better or one.value == other.value) and first <= second and (is_better or first < second)


def _mean_ms(candidate: CandidateReport) -> float:
    assert candidate.latency_ms is not None
    return candidate.latency_ms.mean


def gains(candidates: Sequence[CandidateReport], chosen: str, steps: Sequence[str]) -> list[Gain]:
    """What each part of the chosen route gave: the candidates on the way to it, one part more each time."""
    known = {one.scheme: one for one in candidates}
    small, _, strong = chosen.rpartition(CASCADE_MARK)
    graph = strong.split("+")[-1]
    way = [("exported", "fp32"), ("fused", "fused"), (graph, graph)]
    # Weight-level steps are laid under the graph's scheme from the last to the first: trimming, then the student.
    way += [(steps[place], "+".join([*steps[place:], graph])) for place in range(len(steps) - 1, -1, -1)]
    way += [(f"{small} first", chosen)] if small else []
    changes = dict.fromkeys((part, name) for part, name in way if name in known)
    return [
        Gain(
            part=part,
            scheme=name,
            value=known[name].value,
            size_bytes=known[name].bundle_bytes or known[name].size_bytes,
            p50_ms=_p50(known[name]),
        )
        for part, name in changes
    ]


def _p50(candidate: CandidateReport) -> float | None:
    return candidate.latency_ms.p50 if candidate.latency_ms else None


def why_chosen(candidates: Sequence[CandidateReport], chosen: str, budget: CommonBudgetRecipe) -> str:
    """Why the chosen candidate won, in a sentence."""
    mine = next(one for one in candidates if one.scheme == chosen)
    allowed = [one for one in candidates if one.accepted and one.stopped_at != "budget" and one.latency_ms]
    others = [one for one in allowed if one.scheme != chosen]
    asked = ", ".join(budget.limits)
    within = f" and meets the budget ({asked})" if asked else ""
    if not others:
        return f"{chosen} won: it is the only candidate that the gate let through{within}."
    place = f"of the {len(allowed)} candidates that the gate let through{within}"
    if not all(candidate.timing_valid for candidate in allowed):
        return f"{chosen} won: it is the smallest {place}; the machine was too busy to judge their speed."
    fastest = min(allowed, key=_mean_ms)
    speed = f"mean {_mean_ms(mine):.3g} ms among candidates in turn"
    if fastest.scheme == chosen:
        runner = min(others, key=_mean_ms)
        times = _mean_ms(runner) / _mean_ms(mine)
        return f"{chosen} won: it is the fastest {place} ({speed}, {times:.2f} times faster than {runner.scheme})."
    against = f"the fastest {place} ({fastest.scheme}, {_mean_ms(fastest):.3g} ms)"
    if fastest.batch_dependent and not mine.batch_dependent:
        return f"{chosen} won: {speed} is near {against}, whose answers depend on their neighbours in a batch."
    return f"{chosen} won: {speed} is a tie with {against}, which the smaller wins, and of the same size the better."
