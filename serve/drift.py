"""Whether what is asked still looks like the build's test part: the population stability index of scores, lengths and
unknown tokens.

The index and its thresholds: N. Siddiqi, Credit Risk Scorecards (2006): below 0.1 no shift, from 0.25 on a large one.
Its scatter without any shift: B. Yurdakul and J. Naranjo, Statistical Properties of the Population Stability Index,
Journal of Risk Model Validation 14 (2020): (1/n + 1/m) times chi-squared of one less than the bins. Must not import the
web server.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgetune.serve.heads import Head

logger = logging.getLogger("edgetune.serve")

BINS = 10
SHIFTED = 0.25
WINDOW = 500  # inputs
SURE_Z = 3.0902323061678132  # the normal's 99.9% quantile
# What each figure is, for people.
FIGURES = {"scores": "scores", "tokens": "lengths in tokens", "unknown": "shares of unknown tokens"}


class Figure(msgspec.Struct, frozen=True):
    """How one figure is distributed: rising upper edges of all bins but the last, and the rows in each bin."""

    edges: Annotated[list[float], msgspec.Meta(max_length=BINS)]
    counts: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1, max_length=BINS + 1)]

    def __post_init__(self) -> None:
        """A bin more than edges, which rise: msgspec makes its own error of ours."""
        if len(self.counts) != len(self.edges) + 1 or sorted(self.edges) != self.edges:
            raise ValueError("a figure has rising edges and a bin more than edges")

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Figure:
        """The deciles of values (rows,) float64; where many are the same there are fewer bins."""
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="lower"))
        return cls(edges.tolist(), _counts(edges, values).tolist())

    def index(self, values: NDArray[np.float64]) -> float:
        """The population stability index of values (rows,) float64; half a row is added to each bin."""
        before, now = np.asarray(self.counts) + 0.5, _counts(np.asarray(self.edges), values) + 0.5
        before, now = before / before.sum(), now / now.sum()
        return float(((now - before) * np.log(now / before)).sum())

    def limit(self, rows: int) -> float:
        """The index that so many rows pass in one of a thousand windows without any shift, and `SHIFTED` at least."""
        free = max(1, len(self.counts) - 1)
        # Chi-squared's quantile by E. B. Wilson and M. M. Hilferty, PNAS 17 (1931): 3% too high at most.
        chi = free * (1 - 2 / (9 * free) + SURE_Z * (2 / (9 * free)) ** 0.5) ** 3
        return float(max(SHIFTED, chi * (1 / rows + 1 / max(1, sum(self.counts)))))


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the test part is distributed, by the name of the figure; `unknown_id` is the token that stands for all that
    the vocabulary does not have."""

    figures: dict[str, Figure]
    unknown_id: int | None = None


class Row(Protocol):
    """One encoded input."""

    @property
    def all_ids(self) -> list[int]:
        """The ids of all that is read of it."""
        ...


def figures_of(
    rows: Sequence[Row], unknown_id: int | None, best_scores: NDArray[np.float64] | None
) -> dict[str, NDArray[np.float64]]:
    """The figures of inputs, each (rows,) float64; without probabilities there are no scores."""
    sizes = np.array([len(row.all_ids) for row in rows], dtype=np.float64)
    figures = {"tokens": sizes}
    if unknown_id is not None:
        unknown = np.array([row.all_ids.count(unknown_id) for row in rows], dtype=np.float64)
        figures["unknown"] = unknown / np.maximum(sizes, 1)
    if best_scores is not None:
        figures["scores"] = best_scores
    return figures


def best_scores(head: Head, logits: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """The probability of each answer, (rows,) float64; None of a head that gives no single label."""
    if head.spec.kind != "label":
        return None
    best: NDArray[np.float64] = head.scores(logits).max(axis=1).astype(np.float64)
    return best


class DriftWatch:
    """Watches the inputs of one model, window by window.

    Attributes:
        index: the population stability index of the last full window, by figure; none before there was one.
    """

    def __init__(self, name: str, reference: Reference, *, window: int = WINDOW) -> None:
        self.reference = reference
        self.index: dict[str, float] = {}
        self._name = name
        self._window = window
        self._values: dict[str, list[NDArray[np.float64]]] = {}
        self._rows = 0
        self._shifted: set[str] = set()

    def observe(self, rows: Sequence[Row], scores: NDArray[np.float64] | None) -> None:
        """Count inputs in; the log says when a figure leaves the test part's, and when it is back."""
        for name, values in figures_of(rows, self.reference.unknown_id, scores).items():
            if name in self.reference.figures:
                self._values.setdefault(name, []).append(values)
        self._rows += len(rows)
        if self._rows >= self._window:
            self._judge()
            self._values, self._rows = {}, 0

    def _judge(self) -> None:
        for name, parts in self._values.items():
            values, figure = np.concatenate(parts), self.reference.figures[name]
            index, limit = figure.index(values), figure.limit(len(values))
            self.index[name] = index
            found = (self._name, FIGURES[name], index, len(values), limit)
            if index > limit and name not in self._shifted:
                self._shifted.add(name)
                logger.warning(
                    "bundle %s: the %s have left those of the build's test part: stability index %.2f over %d inputs, "
                    "and up to %.2f is no shift",
                    *found,
                )
            elif index <= limit and name in self._shifted:
                self._shifted.discard(name)
                logger.info("bundle %s: the %s are those of the build's test part again: %.2f", *found[:3])


def _counts(edges: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many values (rows,) lie up to each edge and behind the last: (edges + 1,) int64."""
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
