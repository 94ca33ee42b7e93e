"""How rows become batches: by like lengths, in an order that a continued run repeats, and in passes of bounded memory.

What a pass through the model holds in memory grows with its tokens, and batches of like lengths put the longest rows
together. So a batch above the bound goes through in several passes, whose gradients add up to those of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler

if TYPE_CHECKING:
    from edgetune.tune.models.types import EncodedRow
    from edgetune.tune.tasks.objective import Objective

# Tokens of one pass, padding counted. MiniLM's LoRA keeps about 0.5 MB a token for its gradients; going from 480 to 960
# tokens a pass saves 5% of the processor time of a row.
PASS_TOKENS = {"cpu": 1_024, "cuda": 16_384}
# A pass that keeps nothing for gradients takes less: four times as many tokens did not raise MiniLM's peak.
FORWARD_FACTOR = 4


class EpochSampler(LengthGroupedSampler):
    """Batches of like lengths whose order hangs on seed and epoch alone.

    The Trainer's own draws from the global generator: a run that continues inside an epoch would draw another order,
    and take some rows twice and others not at all.
    """

    def __init__(
        self, batch_size: int, lengths: list[int], seed: int, begin_epoch: Callable[[int], object] | None = None
    ) -> None:
        """`begin_epoch` is told the number of each epoch before it begins."""
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed, self._begin_epoch = seed, begin_epoch
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """What the Trainer calls before each epoch."""
        self.generator.manual_seed(self._seed + epoch)
        if self._begin_epoch is not None:
            self._begin_epoch(epoch)


class RecordSampler(Sampler[int]):
    """Rows that are learnt beside each other, in one batch, in the order that the objective gives; by seed and epoch.

    Within a batch rows are sorted by length, so that passes of bounded memory hold little padding.
    """

    def __init__(self, objective: Objective, rows: Sequence[EncodedRow], batch_size: int, seed: int) -> None:
        self._objective, self._batch_size, self._seed, self._epoch = objective, batch_size, seed, 0
        self._learnt = np.asarray([row["labels"] for row in rows])
        self._lengths = [len(row["input_ids"]) for row in rows]

    def set_epoch(self, epoch: int) -> None:
        """What the Trainer calls before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = self._objective.order(self._learnt, np.random.default_rng([self._seed, self._epoch]))
        while batch := list(islice(order, self._batch_size)):
            yield from sorted(batch, key=self._lengths.__getitem__)


def split_by_tokens(batch: dict[str, torch.Tensor], most_tokens: int) -> list[dict[str, torch.Tensor]]:
    """Parts of a padded batch, in its order, each cut to its own longest row and of at most `most_tokens` tokens.

    Args:
        batch: attention_mask (rows, tokens), others of that shape, and values a row (rows,).
        most_tokens: padding counted; a part of one row may have more.
    """
    mask = batch["attention_mask"]
    if mask.numel() <= most_tokens:
        return [batch]
    lengths = mask.sum(dim=1).tolist()
    starts, longest = [0], 0
    for row, length in enumerate(lengths):
        longest = max(longest, length)
        if row > starts[-1] and (row + 1 - starts[-1]) * longest > most_tokens:
            starts.append(row)
            longest = length
    borders = [*starts, len(lengths)]
    return [_rows_of(batch, slice(first, last)) for first, last in pairwise(borders)]


def _rows_of(batch: dict[str, torch.Tensor], rows: slice) -> dict[str, torch.Tensor]:
    """Some rows of a batch without the columns that are padding in all of them, on whichever side it is."""
    mask = batch["attention_mask"]
    used = mask[rows].any(dim=0).nonzero()
    columns = slice(int(used[0]), int(used[-1]) + 1)
    return {
        name: values[rows, columns] if values.shape == mask.shape and _is_of_tokens(name, values) else values[rows]
        for name, values in batch.items()
    }


def _is_of_tokens(name: str, values: torch.Tensor) -> bool:
    """Whether a matrix has a value a token: all but the labels of rows with several, which are floats."""
    return name != "labels" or not values.is_floating_point()


def joined_rows(batches: Sequence[torch.Tensor], fill: float) -> torch.Tensor:
    """Batches one behind the other; of tokens (rows, tokens, ...) filled up to the longest."""
    longest = max((batch.shape[1] for batch in batches if batch.ndim > 1), default=0)
    filled = []
    for batch in batches:
        room = [*batch.shape]
        room[1:2] = [longest - batch.shape[1]] if batch.ndim > 1 else []
        has_room = batch.ndim > 1 and room[1]
        filled.append(torch.cat([batch, batch.new_full(room, fill)], dim=1) if has_room else batch)
    return torch.cat(filled)


def labelled(rows: Sequence[dict[str, list[int]]], targets: NDArray[Any]) -> list[EncodedRow]:
    """Encoded rows with their targets as the loss takes them, (rows, ...), as the Trainer takes them."""
    return [{**row, "labels": target} for row, target in zip(rows, targets.tolist(), strict=True)]


def shortest_first(rows: Sequence[EncodedRow]) -> list[EncodedRow]:
    """Rows sorted by length: in any other order padding would take most of an evaluation's time."""
    return sorted(rows, key=lambda row: len(row["input_ids"]))
