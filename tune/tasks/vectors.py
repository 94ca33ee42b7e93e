"""The objective of embeddings: vectors in which what belongs together is near. Losses by their papers' formulas.

Of groups (pairs, triplets, labels) every text that is looked for with is told from all texts of the batch that are not
of its group: multiple negatives ranking (Henderson et al. 2017, arXiv 1705.00652; in sentence-transformers
MultipleNegativesRankingLoss), of labels with several positives a row (Khosla et al. 2020, arXiv 2004.11362). Of scored
pairs the order of the cosines is that of the scores (CoSENT, Su 2022). With shorter lengths each loss is the mean over
the vectors' beginnings (Matryoshka, Kusupati et al. 2022, arXiv 2205.13147). Not sentence-transformers' own classes:
they bring a second Trainer, and the methods, passes of bounded memory and rounds of this one would be lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import RecipeError
from edgetune.serve.heads.embedding import unit
from edgetune.tune.data.rows import Target
from edgetune.tune.metrics import Metric
from edgetune.tune.retrieval import (
    EQUAL,
    KEY,
    MARK,
    MRR,
    NEGATIVE,
    QUERY,
    RECALLS,
    ROLE,
    SCORED,
    SPEARMAN,
    halves,
    is_scored,
    query_rows,
)
from edgetune.tune.tasks.objective import FloatArray, HeldOut, Objective, Solver

if TYPE_CHECKING:
    import torch

    from edgetune.tune.data.dataset import Dataset
    from edgetune.tune.recipe import TuneRecipe

# Cosines are multiplied by this before the softmax, as sentence-transformers does: a temperature of 0.05.
SCALE = 20.0
METRICS = (MRR, *RECALLS, SPEARMAN)


@dataclass(frozen=True)
class Vectors(Objective):
    """Vectors of texts; targets are (group, role, mark) as in `edgetune.tune.retrieval`.

    Attributes:
        texts_a_record: texts that stand together in the training part: 2 of pairs, 3 of triplets, 1 of labels.
        lengths: beginnings of the vectors that are trained to stand for the whole, beside it.
        prompts: what stands before a text, by the name that callers use.
    """

    texts_a_record: int = 1
    lengths: tuple[int, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()

    @property
    def width(self) -> int:
        """Not known before a base is open; one stands for it where effort is estimated."""
        return 1

    @property
    def rows_together(self) -> int:
        return max(2, self.texts_a_record)

    def set_by(self, recipe: TuneRecipe, dataset: Dataset) -> Vectors:
        lengths = tuple(sorted(set(recipe.dimensions), reverse=True))
        return replace(self, lengths=lengths, prompts=tuple(dataset.prompts.items()))

    def served_by(self, head: HeadSpec) -> Vectors:
        return replace(self, lengths=tuple(head.lengths))

    def second_metric(self, expected: NDArray[Any]) -> Metric | None:
        """The metric of the shortest vectors, which lose first, where any are offered."""
        return self._of_length(self.lengths[-1]) if self.lengths else None

    def figures(self, expected: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        """The metric at each of the shorter lengths."""
        shorter = [self._of_length(length) for length in self.lengths]
        return {metric.name: metric.of(expected, answers) for metric in shorter}

    def _of_length(self, length: int) -> Metric:
        rows = self.metric.rows
        name = f"{self.metric.name}_of_{length}_numbers"
        return replace(self.metric, name=name, rows=lambda expected, vectors: rows(expected, vectors[:, :length]))

    def metrics(self, known: Sequence[Metric]) -> tuple[Metric, ...]:
        return (SPEARMAN,) if self.metric == SPEARMAN else (MRR, *RECALLS)

    def configure(self, config: Any) -> None:
        """No head: pooled states, scaled to length one, are the outputs."""
        config.edgetune_head = "none"

    def expected(self, targets: Sequence[Target]) -> NDArray[np.int64]:
        return np.asarray(targets, dtype=np.int64).reshape(-1, 3)

    def answers(self, logits: FloatArray) -> NDArray[np.float32]:
        return unit(logits)

    def constants(self, expected: NDArray[Any]) -> NDArray[np.float32]:
        """One vector for all texts, whichever: it finds nothing."""
        return np.ones((1, 1), dtype=np.float32)

    def drawn(self, targets: Sequence[Target], most: int, seed: int) -> NDArray[np.int64]:
        """Whole groups and pairs, since a text without its partners judges nothing."""
        expected = self.expected(targets)
        if len(expected) <= most:
            return np.arange(len(expected))
        keys = np.random.default_rng(seed).permutation(np.unique(expected[:, KEY]))
        rows = {int(key): np.flatnonzero(expected[:, KEY] == key) for key in keys}
        taken = 0
        chosen: list[NDArray[np.int64]] = []
        for key in keys.tolist():
            taken += len(rows[key])
            if taken > most and chosen:
                break
            chosen.append(rows[key])
        return np.sort(np.concatenate(chosen))

    def order(self, learnt: NDArray[Any], random: np.random.Generator) -> Iterator[int]:
        """The rows of one epoch: records in any order; of labels two texts of one label behind each other."""
        if self.texts_a_record > 1:
            records = random.permutation(len(learnt) // self.texts_a_record)
            places = np.arange(self.texts_a_record)
            yield from (self.texts_a_record * records[:, None] + places).ravel().tolist()
            return
        rows, keys = random.permutation(len(learnt)), np.asarray(learnt)[:, KEY]
        by_label = rows[np.argsort(keys[rows], kind="stable")]
        twos = [by_label[first : first + 2] for first in range(0, len(by_label), 2)]
        for place in random.permutation(len(twos)):
            yield from twos[place].tolist()

    def loss(self, logits: torch.Tensor, learnt: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        from torch.nn import functional

        scored = bool((learnt[:, ROLE] == SCORED).any())
        beginnings = [logits, *(logits[:, :length] for length in self.lengths)]
        losses = [
            (_order_loss if scored else _group_loss)(functional.normalize(vectors, dim=1), learnt)
            for vectors in beginnings
        ]
        # A mean, times what the Trainer divides by: it counts each number of the targets.
        return sum(losses[1:], losses[0]) / len(losses) * learnt.numel()

    def imitation(self, logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """One minus the cosine, times the scale of the loss."""
        from torch.nn import functional

        return SCALE * (1 - functional.cosine_similarity(logits, teacher, dim=1)).mean()

    @property
    def strengths(self) -> tuple[float, ...]:
        return (1.0,)

    def solver(self, *, balanced: bool) -> Solver:
        raise NotImplementedError("vectors have no head to solve")

    def linear_head(self, features: Any, learnt: NDArray[Any]) -> None:
        """None: n-grams are compared as they are, by the cosine of their TF-IDF weights."""
        return

    def head_spec(self, held_out: HeldOut) -> HeadSpec:
        width = held_out()[1].shape[1]
        if wrong := [length for length in self.lengths if length >= width]:
            raise RecipeError(
                f"tune.dimensions has {wrong[0]}, and the vectors have {width}.", expected=f"lengths below {width}"
            )
        return HeadSpec(kind="embedding", width=width, lengths=list(self.lengths), prompts=dict(self.prompts))

    def agreement(self, answers: NDArray[Any], others: NDArray[Any]) -> float:
        """Mean cosine: vectors are hardly ever equal."""
        if answers.shape != others.shape:
            return 0.0
        return float(np.mean((unit(answers) * unit(others)).sum(axis=1)))

    def judging(self, targets: Sequence[Target]) -> int:
        """How many queries or scored pairs rows have that can judge."""
        expected = self.expected(targets)
        return len(halves(expected)[0]) if is_scored(expected) else len(query_rows(expected))


def _group_loss(vectors: torch.Tensor, learnt: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each find among itself and all texts that are none: vectors (rows, width) of length one.

    A batch in which nothing is to be found has a loss of nothing.
    """
    import torch
    from torch.nn import functional

    keys, roles, marks = learnt[:, KEY], learnt[:, ROLE], learnt[:, MARK]
    alike = SCALE * vectors @ vectors.T
    same_text = marks[:, None] == marks[None]
    same_group = keys[:, None] == keys[None]
    asks, is_negative = (roles == EQUAL) | (roles == QUERY), roles == NEGATIVE
    offered = roles != QUERY
    finds = asks[:, None] & same_group & (offered & ~is_negative)[None] & ~same_text
    others = offered[None] & (~same_group | is_negative[None]) & ~same_text
    # Minus a thousand and not infinity, whose gradient is no number where a row has no others.
    against = torch.logsumexp(alike.masked_fill(~others, -1000.0), dim=1, keepdim=True)
    each = functional.softplus(against - alike) * finds
    count = finds.sum(dim=1)
    return (each.sum(dim=1) / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


def _order_loss(vectors: torch.Tensor, learnt: torch.Tensor) -> torch.Tensor:
    """CoSENT: log(1 + sum of exp(cosine of the less alike pair - cosine of the more alike)) over all pairs of pairs."""
    import torch

    order = torch.argsort(learnt[:, KEY], stable=True)
    together = (learnt[order[1:], KEY] == learnt[order[:-1], KEY]).nonzero().squeeze(1)
    first, second = order[together], order[together + 1]
    cosine, score = SCALE * (vectors[first] * vectors[second]).sum(dim=1), learnt[first, MARK]
    wrong = cosine[:, None] - cosine[None]
    wrong = wrong.masked_fill(score[:, None] >= score[None], -1000.0).flatten()
    return torch.logsumexp(torch.cat([wrong, wrong.new_zeros(1)]), dim=0)
