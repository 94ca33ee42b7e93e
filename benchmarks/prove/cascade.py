"""Cascades on the validation part: from which margin on the small model answers, and what every share would give.

The small model may fail the gate alone: here it answers only where it is sure. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.prove.ledger import Logits, Slice
from edgetune.serve.cascade import margins
from edgetune.serve.report import CandidateReport, CascadePoint, CascadeReport
from edgetune.tune.metrics import Metric, Statistics

# A small model that answers less than this saves nothing worth a second file.
LEAST_SHARE = 0.1
# Standard errors of the difference that a share may stand behind the best one; see `choose_threshold`.
STANDARD_ERRORS = 0.25
# Shares of which the report shows what they would give.
SHOWN_SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(11))

Models = tuple[CandidateReport, CandidateReport]


@dataclass(frozen=True)
class Threshold:
    """The margin from which the small model answers, and the share of the validation rows that reach it."""

    margin: float
    share: float


def mixed_logits(small: Logits, strong: Logits, threshold: float) -> Logits:
    """What a cascade gives, (rows, classes) float32: the small model's where its margin reaches the threshold."""
    return np.where((margins(small) >= threshold)[:, None], small, strong)


def choose_threshold(rows: Slice, small: Logits, strong: Logits) -> Threshold | None:
    """The threshold of the largest share that is about the best, and no worse than the strong model alone.

    At every share the cascade is compared with the strong model on the same rows, by the gate's metric and the second
    one where there is one. A share is allowed where it is not behind, and within a quarter of the difference's standard
    error of the share that is best. Of the many shares some look good by chance: the largest that is just not behind is
    likely to be one of them, and loses on other rows (docs/log.md has the figures of six such rules).

    Args:
        rows: of the validation part.
        small, strong: logits of both models, (rows, classes) float32.

    Returns:
        None where no share of LEAST_SHARE and more is allowed.
    """
    margin = margins(small)
    order = np.argsort(-margin, kind="stable")
    metrics = [metric for metric in (rows.objective.metric, rows.second_metric) if metric is not None]
    allowed = np.ones(len(order) + 1, dtype=bool)
    for metric in metrics:
        statistics = metric.pair(rows.expected, rows.answers(strong), rows.answers(small))
        allowed &= _about_best(metric, *(one[order] for one in statistics))
    ordered = margin[order]
    allowed[1:-1] &= ordered[:-1] > ordered[1:]  # rows of one margin go together
    allowed[: max(1, int(np.ceil(LEAST_SHARE * len(order))))] = False
    places = np.flatnonzero(allowed)
    if not places.size:
        return None
    place = int(places[-1])
    edge = float(ordered[place - 1] + ordered[place]) / 2 if place < len(order) else 0.0
    return Threshold(edge, place / len(order))


def _about_best(metric: Metric, strong: Statistics, small: Statistics) -> NDArray[np.bool_]:
    """Of each number of rows, from none to all, whether the small model may answer the first so many of them.

    Args:
        metric: what is compared.
        strong, small: statistics (rows, k) float64, the rows with the widest margin first.
    """
    difference = np.vstack([np.zeros(strong.shape[1]), np.cumsum(small - strong, axis=0)])
    total = strong.sum(axis=0)
    gain = -metric.loss(metric.value(total), metric.value(total + difference))
    # Only rows that the two answer unlike each other scatter: each by about one row's share.
    error = np.sqrt((small != strong).any(axis=1).sum()) / len(strong)
    return np.asarray(gain >= max(0.0, float(gain.max()) - STANDARD_ERRORS * error))


def report_cascade(
    rows: Slice, logits: Mapping[str, Logits], cascade: CandidateReport, models: Models
) -> CascadeReport:
    """What the packed cascade gives on the test part, at its threshold and at every tenth of the rows.

    Args:
        rows: of the test part.
        logits: of small and strong model by name, (rows, classes) float32, each answering all rows.
        cascade: the candidate.
        models: the small and the strong one, as the search timed each alone, in turn.
    """
    small, strong = models
    metric, threshold = rows.objective.metric, cascade.threshold or 0.0
    mine, theirs = logits[small.scheme], logits[strong.scheme]
    values = [
        metric.of(rows.expected, rows.answers(one)) for one in (mixed_logits(mine, theirs, threshold), mine, theirs)
    ]
    return CascadeReport(
        small=small.scheme,
        strong=strong.scheme,
        threshold=threshold,
        validation_share=cascade.small_share or 0.0,
        share=float(np.mean(margins(mine) >= threshold)),
        value=values[0],
        small_value=values[1],
        strong_value=values[2],
        curve=_curve(rows, mine, theirs, models),
    )


def _curve(rows: Slice, small: Logits, strong: Logits, models: Models) -> list[CascadePoint]:
    """The metric, and the time that both models' own times make of it, by the share that the small one answers."""
    margin = margins(small)
    order = np.argsort(-margin, kind="stable")
    answers, mine = rows.answers(strong), rows.answers(small)
    first, second = (np.asarray(one.latency_ms.samples if one.latency_ms else []) for one in models)
    is_timed = first.size and second.size and all(one.timing_valid for one in models)
    points = []
    for share in SHOWN_SHARES:
        count = round(share * len(order))
        mixed = answers.copy()
        mixed[order[:count]] = mine[order[:count]]
        points.append(
            CascadePoint(
                share=share,
                threshold=float(margin[order[count - 1]]) if count else 1.0,
                value=rows.objective.metric.of(rows.expected, mixed),
                p50_ms=_median_of_both(first, second, share) if is_timed else None,
                mean_ms=float(first.mean() + (1 - share) * second.mean()) if is_timed else None,
            )
        )
    return points


def _median_of_both(first: NDArray[np.float64], second: NDArray[np.float64], share: float) -> float:
    """The median where a share takes the first's time alone and the rest both, each sample as likely as another."""
    both = second + float(np.median(first))
    values = np.concatenate([first, both])
    weights = np.concatenate([np.full(len(first), share / len(first)), np.full(len(both), (1 - share) / len(both))])
    order = np.argsort(values, kind="stable")
    place = int(np.searchsorted(np.cumsum(weights[order]), 0.5 - 1e-9))
    return float(values[order[min(place, len(order) - 1)]])
