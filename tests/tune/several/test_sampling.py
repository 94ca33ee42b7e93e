"""Batches of several tasks: of one task each, shared out by a power of the sizes, alike in a continued run."""

from __future__ import annotations

from collections import Counter

import pytest

from edgetune.tune.several.sampling import TaskSampler, batches_of


@pytest.mark.parametrize(("power", "expected"), [(1.0, [100, 3, 1]), (0.5, [85, 13, 4]), (0.0, [34, 34, 34])])
def test_batches_are_shared_out_by_the_power_of_the_sizes(power, expected):
    # These rows fill 103 batches of 64; with the power 0.5 they are shared 80 : 12.6 : 4.
    assert batches_of([6_400, 160, 16], 64, power) == expected


def test_each_batch_is_of_one_task_and_no_row_comes_again_before_all_have_come():
    sizes = (40, 9)
    sampler = TaskSampler([range(size) for size in sizes], 4, 0.5, seed=1)
    drawn: list[int] = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        rows = list(sampler)
        assert len(rows) == len(sampler)
        batches = [rows[start : start + 4] for start in range(0, len(rows), 4)]
        assert all(len({row < sizes[0] for row in batch}) == 1 for batch in batches)
        drawn += rows
    for first, size in ((0, 40), (40, 9)):
        counts = Counter(row for row in drawn if first <= row < first + size)
        assert len(counts) == size or sum(counts.values()) < size
        assert max(counts.values()) - min(counts.values()) <= 1


def test_an_epoch_hangs_on_seed_and_number_alone():
    def rows(epoch, seed=0):
        sampler = TaskSampler([[5] * 30, [7] * 10], 4, 0.5, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert rows(2) == rows(2)
    assert rows(2) != rows(1)
    assert rows(2) != rows(2, seed=1)
