"""What a text is to the student: its tokens and its pairs of neighbours, each a row of one table.

Must not import torch: the same arrays go into the bundle's tables.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A pair that stands once in all texts says what its text says, and nothing of another.
FEWEST_OF_A_PAIR = 2
PAIR_SHIFT = 32

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Bags:
    """The features of several inputs: those of input i are `rows[starts[i] : starts[i + 1]]`.

    Attributes:
        rows: (features,) int64, rows of the table.
        starts: (inputs + 1,) int64.
    """

    rows: IntArray
    starts: IntArray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> IntArray:
        """Features of each input: (inputs,) int64."""
        return np.diff(self.starts)

    def take(self, inputs: IntArray) -> Bags:
        """The bags of these inputs, in that order."""
        counts = self.counts[inputs]
        starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(self.starts[inputs] - starts[:-1], counts) + np.arange(starts[-1])
        return Bags(self.rows[places], starts)

    def without(self, share: float, random: np.random.Generator) -> Bags:
        """These bags with about this share of their features left out."""
        stays = random.random(len(self.rows)) >= share
        return Bags(self.rows[stays], np.concatenate([[0], np.cumsum(stays)])[self.starts])

    def joined(self, others: Bags) -> Bags:
        """These bags with others behind them."""
        starts = np.concatenate([self.starts, others.starts[1:] + self.starts[-1]])
        return Bags(np.concatenate([self.rows, others.rows]), starts)


@dataclass(frozen=True)
class Features:
    """Which tokens and pairs have a row: row 0 is nobody's, then the tokens, then the pairs.

    Attributes:
        tokens: ids with a row (tokens,) int64, ascending.
        counts: how often each stands in the texts (tokens,) int64.
        pair_keys: first id * 2**32 + second id (pairs,) int64, ascending.
        vocabulary: ids that the tokenizer can give are below it.
    """

    tokens: IntArray
    counts: IntArray
    pair_keys: IntArray
    vocabulary: int

    @classmethod
    def of(cls, inputs: Sequence[Sequence[int]], special: Collection[int], vocabulary: int, most_rows: int) -> Features:
        """All tokens of some inputs but the special ones, and the most frequent of their pairs.

        Args:
            inputs: token ids of each, special tokens included: with those a pair tells start and end.
            special: ids that have no row of their own.
            vocabulary: ids that the tokenizer can give are below it.
            most_rows: of the table; tokens come first.
        """
        ids, starts = _joined(inputs)
        tokens, counts = np.unique(ids, return_counts=True)
        ordinary = ~np.isin(tokens, list(special))
        tokens, counts = tokens[ordinary], counts[ordinary]
        if len(tokens) > most_rows - 1:  # the most frequent; among equals the lower id
            chosen = np.sort(np.argsort(-counts, kind="stable")[: most_rows - 1])
            tokens, counts = tokens[chosen], counts[chosen]
        keys, often = np.unique(_pairs(ids, starts)[0], return_counts=True)
        keys, often = keys[often >= FEWEST_OF_A_PAIR], often[often >= FEWEST_OF_A_PAIR]
        chosen = np.argsort(-often, kind="stable")[: most_rows - 1 - len(tokens)]
        return cls(tokens, counts, np.sort(keys[chosen]), vocabulary)

    @property
    def size(self) -> int:
        """Rows of the table."""
        return 1 + len(self.tokens) + len(self.pair_keys)

    @property
    def token_rows(self) -> NDArray[np.int32]:
        """The row of each token id (vocabulary,) int32, 0 where it has none."""
        rows = np.zeros(self.vocabulary, dtype=np.int32)
        rows[self.tokens] = np.arange(1, 1 + len(self.tokens))
        return rows

    @property
    def pair_rows(self) -> NDArray[np.int32]:
        """The row of each pair (pairs,) int32."""
        return np.arange(1 + len(self.tokens), self.size, dtype=np.int32)

    def bags(self, inputs: Sequence[Sequence[int]]) -> Bags:
        """The features of inputs, by their token ids with special tokens."""
        ids, starts = _joined(inputs)
        owners = np.repeat(np.arange(len(inputs)), np.diff(starts))
        tokens = self.token_rows[ids].astype(np.int64)
        keys, firsts = _pairs(ids, starts)
        places = np.searchsorted(self.pair_keys, keys)
        known = places < len(self.pair_keys)
        known[known] = self.pair_keys[places[known]] == keys[known]
        rows = np.concatenate([tokens[tokens > 0], 1 + len(self.tokens) + places[known]])
        owners = np.concatenate([owners[tokens > 0], owners[firsts[known]]])
        counts = np.bincount(owners, minlength=len(inputs))
        return Bags(rows[np.argsort(owners, kind="stable")], np.concatenate([[0], np.cumsum(counts)]))


def _joined(inputs: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """The ids of all inputs (ids,), and where each input starts (inputs + 1,)."""
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in inputs])]).astype(np.int64)
    return np.fromiter((token for ids in inputs for token in ids), np.int64, int(starts[-1])), starts


def _pairs(ids: IntArray, starts: IntArray) -> tuple[IntArray, IntArray]:
    """Keys of all adjacent pairs that stand in one input, and where the first of each stands in `ids`."""
    firsts = np.arange(len(ids) - 1) if len(ids) else np.zeros(0, np.int64)
    ends = starts[1:] - 1  # the last token of an input is the first of no pair
    inside = np.ones(len(firsts), dtype=bool)
    inside[ends[(ends >= 0) & (ends < len(firsts))]] = False
    firsts = firsts[inside]
    return (ids[firsts] << PAIR_SHIFT) | ids[firsts + 1], firsts
