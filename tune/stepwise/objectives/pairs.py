"""How a model prefers: its log-probabilities of both answers of each pair, beside those of the base.

The implicit reward of an answer is log p(answer) - log p_base(answer) (Rafailov et al. 2023, arXiv 2305.18290); the
margin of a pair is that of the chosen answer less that of the rejected one, in nats. Margins above 0 are right. The
base itself has no margins: it is right on half of the pairs by definition, where TRL would count its ties as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.tune.stepwise.perplexity import measure_perplexity
from edgetune.tune.stepwise.traces import EncodedRow

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model
    from edgetune.tune.training.progress import Progress


@dataclass(frozen=True)
class PairNats:
    """What a model thinks of both answers of pairs: minus their log-probability in nats, (pairs,) float64 each."""

    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]

    def margins(self, base: PairNats) -> NDArray[np.float64]:
        """How much more than the base the model prefers the chosen answers, in nats: (pairs,) float64."""
        return (base.chosen - self.chosen) - (base.rejected - self.rejected)

    def save(self, path: Path) -> None:
        """Write them as .npz."""
        np.savez(path, chosen=self.chosen, rejected=self.rejected)

    @classmethod
    def load(cls, path: Path) -> PairNats:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(stored["chosen"], stored["rejected"])


def rejected_rows(rows: Sequence[Mapping[str, Any]]) -> list[EncodedRow]:
    """The rejected answers of pairs, as rows of their own."""
    return [{"input_ids": row["rejected_ids"], "labels": row["rejected_labels"]} for row in rows]


def chosen_rows(rows: Sequence[Mapping[str, Any]]) -> list[EncodedRow]:
    """The chosen answers of pairs, as rows of their own."""
    return [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]


def are_pairs(rows: Sequence[EncodedRow]) -> bool:
    """Whether rows are pairs of answers."""
    return bool(rows) and "rejected_ids" in rows[0]


def measure_pairs(model: Model, rows: Sequence[EncodedRow], *, progress: Progress | None = None) -> PairNats:
    """Log-probabilities of both answers of each pair, in evaluation mode; raises as `measure_perplexity`."""
    chosen = measure_perplexity(model, chosen_rows(rows), progress=progress)
    rejected = measure_perplexity(model, rejected_rows(rows), progress=progress)
    return PairNats(chosen.losses, rejected.losses)


def accuracy(margins: NDArray[np.float64]) -> float:
    """Share of pairs with a margin above 0; a tie is half right."""
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def preference_loss(margins: NDArray[np.float64], beta: float) -> float:
    """Mean of -log sigmoid(beta x margin): DPO's loss, by which the epochs of every offline objective are compared."""
    return float(np.mean(np.logaddexp(0.0, -beta * margins)))


def paired_votes(rows: Sequence[EncodedRow]) -> tuple[list[EncodedRow], int]:
    """Liked rows beside disliked ones as pairs, and how many rows are left over, for want of a partner.

    A vote says nothing of another answer: who learnt it gives liked answers more implicit reward than disliked ones,
    whatever their prompts, so that any two of them judge.
    """
    liked = [row for row in rows if row["liked"][0]]
    disliked = [row for row in rows if not row["liked"][0]]
    pairs = [
        {
            "input_ids": good["input_ids"],
            "labels": good["labels"],
            "rejected_ids": bad["input_ids"],
            "rejected_labels": bad["labels"],
        }
        for good, bad in zip(liked, disliked, strict=False)
    ]
    return pairs, abs(len(liked) - len(disliked))


def votes_of(rows: Sequence[EncodedRow]) -> list[EncodedRow]:
    """Rows with votes; of each pair both sides, the chosen one liked and the rejected one not."""
    if not are_pairs(rows):
        return list(rows)
    sides = zip(chosen_rows(rows), rejected_rows(rows), strict=True)
    return [{**row, "liked": [int(not place)]} for pair in sides for place, row in enumerate(pair)]
