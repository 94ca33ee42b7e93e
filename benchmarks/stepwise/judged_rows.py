"""The rows that judge a language model's candidates: answers, and where answers were judged, the rejected ones too.

A candidate prefers as the tuned model does where its own log-probabilities, beside those that the base gave when it was
tuned, order both answers of a pair the same way. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.stepwise.divergence import Divergence
from edgetune.tune.data.slices import frozen_indices, frozen_rows
from edgetune.tune.stepwise.traces import EncodedRow

if TYPE_CHECKING:
    from edgetune.tune.stepwise.objectives.pairs import PairNats


@dataclass(frozen=True)
class JudgedRows:
    """Encoded rows that judge: token ids, and labels of -100 where a token is no answer's."""

    ids: tuple[tuple[int, ...], ...]
    labels: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, rows: Sequence[EncodedRow], most: int, seed: int) -> Self:
        """At most `most` of encoded rows, drawn by `seed`."""
        drawn = frozen_rows(rows, most, seed)
        return cls(tuple(tuple(row["input_ids"]) for row in drawn), tuple(tuple(row["labels"]) for row in drawn))

    def drawn(self, most: int, seed: int) -> Self:
        """At most `most` of these."""
        pairs = frozen_rows(list(zip(self.ids, self.labels, strict=True)), most, seed)
        return type(self)(tuple(ids for ids, _ in pairs), tuple(labels for _, labels in pairs))


@dataclass(frozen=True)
class Margins:
    """How much more than the base the tuned model and a candidate prefer the chosen answers, in nats: (pairs,) each."""

    reference: NDArray[np.float64]
    candidate: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """Share of pairs in which the candidate prefers the chosen answer."""
        return float(np.mean(self.candidate > 0))


@dataclass(frozen=True)
class JudgedPairs:
    """The rejected answers beside the rows that judge, and how much the base prefers the chosen ones: (pairs,) nats."""

    rejected: JudgedRows
    base: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Sequence[EncodedRow], base: PairNats | None, most: int, seed: int) -> Self | None:
        """Of the same rows as `JudgedRows.of` draws; None where they are no pairs.

        Args:
            base: what the base thinks of all of the rows, or of those that are drawn.
        """
        if base is None or not rows or "rejected_ids" not in rows[0]:
            return None
        drawn = frozen_indices(len(rows), most, seed)
        places = drawn if len(base.chosen) == len(rows) else np.arange(len(drawn))
        pairs = [rows[place] for place in drawn.tolist()]
        rejected = JudgedRows(
            tuple(tuple(row["rejected_ids"]) for row in pairs), tuple(tuple(row["rejected_labels"]) for row in pairs)
        )
        return cls(rejected, base.rejected[places] - base.chosen[places])

    def margins(self, chosen: Divergence, rejected: Divergence) -> Margins:
        """Of the tuned model's graph and a candidate, by how far they lie apart on both answers of each pair."""
        pairs = list(zip(chosen.texts, rejected.texts, strict=True))
        reference = np.asarray([bad.reference_nats - good.reference_nats for good, bad in pairs])
        candidate = np.asarray([bad.candidate_nats - good.candidate_nats for good, bad in pairs])
        return Margins(reference - self.base, candidate - self.base)
