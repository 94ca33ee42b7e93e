"""The split by hand-made counts, and its promises for any data: every row once, shares kept, repeatable."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.tune.data.split import FEW_ROWS, split_rows

SHARES = (0.7, 0.15, 0.15)


def counts(classes, shares=SHARES, seed=0):
    split = split_rows(classes, shares, seed=seed)
    return [dict(Counter(np.asarray(classes)[rows].tolist())) for rows in (split.train, split.validation, split.test)]


def test_shares_that_divide_evenly_are_met_exactly():
    assert counts([0] * 20 + [1] * 40) == [{0: 14, 1: 28}, {0: 3, 1: 6}, {0: 3, 1: 6}]


def test_roundings_of_many_small_classes_cancel_out():
    split = split_rows([number for number in range(77) for _ in range(10)], SHARES, seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (539, 116, 115)


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_class_of_few_rows_goes_to_training_first(rows):
    split = split_rows([0] * 100 + [1] * rows, SHARES, seed=3)
    small = [int((part >= 100).sum()) for part in (split.train, split.validation, split.test)]
    assert sum(small) == rows
    assert small[0] >= max(1, rows - 1)


def test_a_class_of_five_rows_has_a_test_row():
    assert [part[1] for part in (counts([0] * 100 + [1] * 5)[0], counts([0] * 100 + [1] * 5)[2])] == [3, 1]


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_small_classes_together_give_every_part_its_share(rows):
    train, validation, test = counts([number for number in range(20) for _ in range(rows)])
    assert len(train) == 20
    total = 20 * rows
    assert abs(sum(validation.values()) - 0.15 * total) <= 1
    assert abs(sum(test.values()) - 0.15 * total) <= 1


def test_a_part_without_rows_gets_the_one_that_can_be_spared():
    assert counts([0, 1, 2, 3, 3])[0] == {0: 1, 1: 1, 2: 1, 3: 1}
    assert counts([0, 1, 2, 2, 3, 3])[1:] in ([{2: 1}, {3: 1}], [{3: 1}, {2: 1}])
    assert counts([0, 1, 2]) == [{0: 1, 1: 1, 2: 1}, {}, {}]


def test_a_share_of_nothing_gets_nothing():
    split = split_rows([0, 0, 0, 0, 1, 1], (0.5, 0.5, 0.0), seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (3, 3, 0)


def test_another_seed_gives_another_split_and_the_same_seed_the_same():
    classes = [0, 1] * 50
    one, again, other = (split_rows(classes, SHARES, seed=seed).test.tolist() for seed in (1, 1, 2))
    assert one == again
    assert one != other


shares = st.tuples(st.integers(1, 20), st.integers(0, 10), st.integers(0, 10)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=300), shares, st.integers(0, 2**31))
def test_every_row_is_in_exactly_one_part_and_every_class_has_its_share(classes, shares, seed):
    split = split_rows(classes, shares, seed=seed)
    parts = (split.train, split.validation, split.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(classes)))
    numbers = np.asarray(classes)
    # A part that would have been empty has one row, taken from the training rows.
    filled = any(len(part) == 1 for part in parts)
    for number, rows in Counter(classes).items():
        got = [int((numbers[part] == number).sum()) for part in parts]
        assert got[0] >= 1
        assert rows < FEW_ROWS or shares[2] == 0 or got[2] >= 1
        # Within a row of the exact share; the promised training and test row may take one more each.
        assert all(abs(count - rows * share) < 3 for count, share in zip(got, shares, strict=True))
        if rows * shares[0] >= 1 and rows * shares[2] >= 1 and not filled:
            assert all(abs(count - rows * share) < 1 + 1e-6 for count, share in zip(got, shares, strict=True))
    again = split_rows(classes, shares, seed=seed)
    assert all((a == b).all() for a, b in zip(parts, (again.train, again.validation, again.test), strict=True))
