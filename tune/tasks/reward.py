"""Reward models: a number for a prompt and its answer, larger for answers that were preferred.

Learnt of pairs of answers by Bradley and Terry's model of paired comparisons (Biometrika 39, 1952), as in Stiennon et
al. 2020 (arXiv 2009.01325): the loss of a pair is -log sigmoid(chosen - rejected). Pairs stay whole while they are
read, cleaned and split; then each answer is a row of its own, beside its prompt, as rewards are asked for.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.columns import Columns
from edgetune.tune.data.rows import Input, Rows, Target, key
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.metrics import PAIR_ACCURACY, Metric, pair_rows
from edgetune.tune.stepwise.chats import Chat
from edgetune.tune.stepwise.format_choice import FormatChoice, chats_of, choose_format
from edgetune.tune.stepwise.objectives.rewards import asked_words
from edgetune.tune.stepwise.rows import RawRows, raw_rows_of
from edgetune.tune.tasks.objective import Head
from edgetune.tune.tasks.regression import Number
from edgetune.tune.tasks.task import Guess, Summary
from edgetune.tune.tasks.text_pairs import TextPairRegression

if TYPE_CHECKING:
    import torch

    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.reading import Table
    from edgetune.tune.data.rows import Parts

PAIR = "pair"  # the target of every record, in words
# Inverse strengths of L2 regularization of the probe, on differences of features of unit variance.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Reward(Number):
    """A reward for each answer; targets are (pair, 1 for the chosen answer or 0), of one pair behind each other."""

    @property
    def rows_together(self) -> int:
        return 2

    def expected(self, targets: Sequence[Target]) -> NDArray[Any]:
        return np.asarray(targets, dtype=np.int64).reshape(-1, 2)

    def learnt(self, targets: Sequence[Target]) -> NDArray[np.int64]:  # type: ignore[override]
        return self.expected(targets)

    def restored(self, learnt: NDArray[Any]) -> NDArray[Any]:
        return learnt

    def constants(self, expected: NDArray[Any]) -> NDArray[np.float64]:
        """One reward for all, whichever: it prefers nothing."""
        return np.zeros(1)

    def drawn(self, targets: Sequence[Target], most: int, seed: int) -> NDArray[np.int64]:
        """Whole pairs."""
        pairs = frozen_indices(len(targets) // 2, max(1, most // 2), seed)
        return np.sort(np.concatenate([2 * pairs, 2 * pairs + 1]))

    def order(self, learnt: NDArray[Any], random: np.random.Generator) -> Iterator[int]:
        pairs = random.permutation(len(learnt) // 2)
        yield from (2 * pairs[:, None] + np.arange(2)).ravel().tolist()

    def loss(self, logits: torch.Tensor, learnt: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        import torch
        from torch.nn import functional

        # Sorted so that each pair stands together, its rejected answer first.
        rewards = logits[torch.argsort(2 * learnt[:, 0] + learnt[:, 1]), 0]
        # A mean, times what the Trainer divides by: it counts each number of the targets.
        return functional.softplus(rewards[::2] - rewards[1::2]).mean() * learnt.numel()

    @property
    def strengths(self) -> tuple[float, ...]:
        return STRENGTHS

    def solver(self, *, balanced: bool) -> PairSolver:  # type: ignore[override]
        return PairSolver()

    def linear_head(self, features: Any, learnt: NDArray[Any]) -> Head:
        """Logistic regression on the differences of chosen and rejected features."""
        return PairSolver().solve(features, learnt, 1.0)

    def in_units(self) -> Reward:
        return self

    def figures(self, expected: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        """The mean margin of the chosen answer over the rejected one."""
        chosen, rejected = pair_rows(expected)
        return {"reward_margin": float(np.mean(answers[chosen] - answers[rejected]))}

    def agreement(self, answers: NDArray[Any], others: NDArray[Any]) -> float:
        """Share of neighbouring answers, which are those of a pair, that both order alike."""
        ours, theirs = (
            np.sign(values[: len(values) // 2 * 2].reshape(-1, 2) @ [1, -1]) for values in (answers, others)
        )
        return float(np.mean(ours == theirs)) if len(ours) else 1.0


class PairSolver:
    """Logistic regression without an intercept, on the difference of both features of each pair and its mirror."""

    def solve(self, features: Any, learnt: NDArray[Any], strength: float) -> Head:
        """The head of one strength; see `Solver`."""
        from sklearn.linear_model import LogisticRegression

        # By their order, which whole pairs keep: of two parts that are joined the numbers of pairs are not unique.
        chosen, rejected = (np.flatnonzero(np.asarray(learnt)[:, 1] == kind) for kind in (1, 0))
        apart = features[chosen] - features[rejected]
        signs = np.where(np.arange(apart.shape[0]) % 2, -1.0, 1.0)  # half of them turned round: two classes are needed
        turned = apart.multiply(signs[:, None]).tocsr() if hasattr(apart, "multiply") else apart * signs[:, None]
        if apart.shape[0] < 2:
            return Head(np.zeros((1, features.shape[1]), np.float32), np.zeros(1, np.float32))
        model = LogisticRegression(C=strength, fit_intercept=False, max_iter=1000).fit(turned, signs > 0)
        return Head(model.coef_.astype(np.float32), np.zeros(1, np.float32))


class RewardModel(TextPairRegression):
    """A reward for a prompt and its answer."""

    name: ClassVar[str] = "reward-model"
    alone: ClassVar[str] = "answers are learnt by pairs"
    summary: ClassVar[str] = "A reward for a prompt and its answer, larger for answers that people prefer."
    stratum: ClassVar[str] = "prompt"
    metrics: ClassVar[tuple[Metric, ...]] = (PAIR_ACCURACY,)

    def recognises(self, columns: Mapping[str, Sequence[Any]], section: Mapping[str, Any]) -> Guess:
        """A chosen and a rejected answer."""
        names = {name.casefold() for name in columns}
        if {"chosen", "rejected"} <= names or {"chosen_messages", "rejected_messages"} <= names:
            return Guess(0.5, "the rows have a chosen and a rejected answer")
        return Guess()

    def choose_columns(self, table: Table, recipe: DataRecipe) -> Columns:
        self._refuse_keys(recipe, "text", "text_pair", "label", "separator", "image")
        choice = _format_of(_raw(table, tuple(table.columns)))
        if choice.format.judged != "pairs":
            raise DataError(
                f"{table.source} is read as {choice.format.name}, and a reward is learnt of pairs of answers.",
                expected='rows such as {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}',
                action="name a file of such rows, or another --task.",
            )
        return Columns(tuple(choice.columns.values()), (), choice.findings)

    def input_columns(self, columns: Columns) -> tuple[str, ...]:
        """None: what is served is a prompt and one answer."""
        return ()

    def read_inputs(self, table: Table, columns: Columns) -> tuple[Input, ...]:
        raw = _raw(table, columns.texts)
        (chats,) = chats_of([raw], _format_of(raw))
        return tuple(_record(chat) for chat in chats)

    def read_words(self, table: Table, columns: Columns) -> tuple[str, ...]:
        return (PAIR,) * len(table)

    def labels(self, parts: Parts, source: str, order: Sequence[str] | None) -> tuple[str, ...]:
        same = sum(key(record[1]) == key(record[2]) for record in parts.train.texts)
        if 2 * same > len(parts.train):
            raise DataError(
                f"{counted(same, 'row')} of {len(parts.train):,} of {source} prefer an answer to itself.",
                expected="two different answers.",
                action="look at the columns of chosen and rejected answers.",
            )
        return ()

    def target(self, word: str, labels: Mapping[str, int]) -> float:
        return 0

    def strata(self, targets: Sequence[Target]) -> list[Hashable]:
        return [0] * len(targets)

    def units(self, rows: Rows) -> Sequence[int] | None:
        """Pairs of one prompt stay together."""
        first: dict[object, int] = {}
        return [first.setdefault(key(str(record[0])), place) for place, record in enumerate(rows.texts)]

    def unrolled(
        self, texts: Sequence[Input], targets: Sequence[Target], recipe: DataRecipe, *, part: str
    ) -> tuple[tuple[Input, ...], tuple[Target, ...]]:
        inputs = tuple((record[0], answer) for record in texts for answer in record[1:])
        return inputs, tuple((pair, is_chosen) for pair in range(len(texts)) for is_chosen in (1, 0))

    def describe(self, labels: Sequence[str], targets: Sequence[Target]) -> Summary:
        pairs = len(targets) // 2
        return Summary(f"{counted(pairs, 'pair')} of a chosen and a rejected answer.", {"pairs": pairs})

    def objective(self, labels: Sequence[str], metric: str, targets: Sequence[Target]) -> Reward:
        return Reward((), self.metric(metric), 0.0, 1.0)


def _record(chat: Chat) -> tuple[str, str, str]:
    assert chat.rejected is not None
    return asked_words(chat.turns[:-1]), chat.turns[-1].content, chat.rejected.content


def _raw(table: Table, names: Sequence[str]) -> RawRows:
    cells = zip(*(table.columns[name] for name in names), strict=True)
    return raw_rows_of([dict(zip(names, row, strict=True)) for row in cells], table.source)


def _format_of(raw: RawRows) -> FormatChoice:
    return choose_format(raw, None, {})
