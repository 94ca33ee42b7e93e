"""Which rows of several tasks are learnt when: batches of one task each, drawn by the tasks' sizes to a power.

With the power 1 tasks have batches by their rows, with 0 as many each; between them small tasks are not drowned by
large ones (Raffel et al. 2020, arXiv 1910.10683, section 3.5.2, there as a temperature).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

# Batches that are sorted by length together: padding stays small, and batches are not the same each epoch.
SORTED_BATCHES = 50


def batches_of(sizes: Sequence[int], batch_size: int, power: float) -> list[int]:
    """Batches of each task in an epoch, which has as many as all rows fill; at least one of each.

    Args:
        sizes: rows of each task.
        batch_size: rows of a batch.
        power: of the sizes, by which batches are shared out.
    """
    total = max(1, round(sum(sizes) / batch_size))
    shares = np.asarray(sizes, dtype=np.float64) ** power
    return [max(1, round(total * share)) for share in (shares / shares.sum()).tolist()]


class TaskSampler(Sampler[int]):
    """Rows of one task after another, a batch at a time, the batches of all tasks shuffled; by seed and epoch alone.

    Rows are numbered through all tasks. Of a task each row comes once before any comes again; what an epoch has no
    batch for comes in another.
    """

    def __init__(self, lengths: Sequence[Sequence[int]], batch_size: int, power: float, seed: int) -> None:
        """Of tasks whose rows have these lengths."""
        self._lengths = [np.asarray(of_task, dtype=np.int64) for of_task in lengths]
        self._batch_size, self._seed, self._epoch = batch_size, seed, 0
        self._batches = batches_of([len(of_task) for of_task in lengths], batch_size, power)

    def set_epoch(self, epoch: int) -> None:
        """What the Trainer calls before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return sum(self._batches) * self._batch_size

    def __iter__(self) -> Iterator[int]:
        first, batches = 0, []
        for task, lengths in enumerate(self._lengths):
            batches += [first + batch for batch in self._drawn(task, lengths)]
            first += len(lengths)
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(batches))
        for place in order.tolist():
            yield from batches[place].tolist()

    def _drawn(self, task: int, lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """The batches of one task in this epoch, of rows of like lengths."""
        size, rows = self._batches[task] * self._batch_size, len(lengths)
        start = self._epoch * size
        rounds = range(start // rows, (start + size - 1) // rows + 1)
        order = np.concatenate([np.random.default_rng([self._seed, task, turn]).permutation(rows) for turn in rounds])
        drawn = order[start - rounds[0] * rows :][:size]
        width = SORTED_BATCHES * self._batch_size
        for begin in range(0, size, width):
            together = drawn[begin : begin + width]
            together = together[np.argsort(lengths[together], kind="stable")]
            yield from np.split(together, range(self._batch_size, len(together), self._batch_size))
