"""Rows of caches are put together at their last token, and columns that nobody needs are cut off."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgetune.serve.stepwise.cache import Cache, Store, beginning, empty_cache, gather, without_room


@pytest.fixture
def store() -> Store:
    return Store(onnxruntime.OrtValue, "cpu", ((1, 2), (3, 1)), (np.float32, np.float32))


def _cache(store: Store, mask: list[list[int]], mark: int, windows: tuple[int, int] = (99, 99)) -> Cache:
    """Each value of column c of row r is mark + 10 r + c."""
    rows, columns = len(mask), len(mask[0])
    plain = mark + 10.0 * np.arange(rows)[:, None] + np.arange(columns)[None]
    values = []
    for (heads, width), window in zip(store.sizes, windows, strict=True):
        full = np.broadcast_to(plain[:, None, :, None], (rows, heads, columns, width)).astype(np.float32)
        values.append(store.value(np.ascontiguousarray(full[:, :, -window:])))
    return Cache(tuple(values), np.array(mask, dtype=np.int64))


def _columns(cache: Cache, index: int = 0) -> list[list[float]]:
    array = cache.values[index].numpy()
    assert (array == array[:, :1, :, :1]).all()
    return [[float(value) for value in row] for row in array[:, 0, :, 0]]


def test_shorter_rows_begin_later(store: Store) -> None:
    joined = gather(store, [(_cache(store, [[1, 1, 1], [0, 1, 1]], 100), [0, 1]), (_cache(store, [[1]], 200), [0])])
    assert joined.mask.tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    for index in range(2):
        assert _columns(joined, index) == [[100, 101, 102], [110, 111, 112], [0, 0, 200]]
    assert (joined.rows, joined.columns) == (3, 3)
    assert joined.size_bytes == 3 * 3 * (1 * 2 + 3 * 1) * 4
    assert all(value.numpy().flags.c_contiguous for value in joined.values)


def test_when_the_longest_leaves_its_columns_go(store: Store) -> None:
    cache = _cache(store, [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]], 100)
    left = gather(store, [(cache, [2, 1])])
    assert left.mask.tolist() == [[0, 1], [1, 1]]
    assert _columns(left) == [[122, 123], [112, 113]]


def test_padding_within_a_row_stays(store: Store) -> None:
    cache = _cache(store, [[0, 1, 0, 1], [0, 1, 1, 1]], 100)
    assert gather(store, [(cache, [0])]).mask.tolist() == [[1, 0, 1]]


def test_the_same_rows_are_not_copied(store: Store) -> None:
    cache = _cache(store, [[1, 1], [0, 1]], 100)
    assert gather(store, [(cache, [0, 1])]) is cache


def test_a_sliding_window_keeps_its_last_columns(store: Store) -> None:
    long = _cache(store, [[1] * 5, [0, 0, 1, 1, 1]], 100, (99, 3))
    short = _cache(store, [[1, 1]], 200, (99, 3))
    joined = gather(store, [(long, [1]), (short, [0])])
    assert joined.mask.tolist() == [[1, 1, 1], [0, 1, 1]]
    assert _columns(joined, 0) == [[112, 113, 114], [0, 200, 201]]
    assert _columns(joined, 1) == [[112, 113, 114], [0, 200, 201]]
    wide = gather(store, [(long, [0]), (short, [0])])
    assert _columns(wide, 0) == [[100, 101, 102, 103, 104], [0, 0, 0, 200, 201]]
    assert _columns(wide, 1) == [[102, 103, 104], [0, 200, 201]]


def test_a_beginning_serves_many_rows(store: Store) -> None:
    cache = _cache(store, [[1, 1, 1]], 100)
    assert beginning(store, cache, 3) is cache
    two = beginning(store, cache, 2, rows=3)
    assert two is not None
    assert two.mask.tolist() == [[1, 1]] * 3
    assert _columns(two, 1) == [[100, 101]] * 3
    forgetful = _cache(store, [[1] * 4], 100, (99, 2))
    assert beginning(store, forgetful, 3) is None
    assert beginning(store, forgetful, 4) is forgetful


def test_before_the_first_token_there_is_nothing(store: Store) -> None:
    cache = empty_cache(store, 2)
    shapes: list[Any] = [tuple(value.shape()) for value in cache.values]
    assert shapes == [(2, 1, 0, 2), (2, 3, 0, 1)]
    assert (cache.mask.shape, cache.size_bytes) == ((2, 0), 0)


def test_a_cache_that_is_stored_shares_no_memory_with_the_one_that_goes_on() -> None:
    """Of one row and one head the columns in use lie in one piece, which a copy on demand would not copy."""
    store = Store(onnxruntime.OrtValue, "cpu", ((1, 3),), (np.float32,), roomy=True, context_tokens=99)
    live = store.cache([np.ones((1, 1, 5, 3), np.float32)], np.ones((1, 5), np.int64), coming=9)
    stored = without_room(store, live)
    assert not np.shares_memory(stored.values[0].numpy(), live.values[0].numpy())
    assert stored.values[0].shape() == [1, 1, 5, 3]
    live.values[0].numpy()[...] = 7
    assert (stored.values[0].numpy() == 1).all()


@pytest.mark.parametrize("rows", [1, 2])
def test_a_beginning_outlives_the_cache_that_it_was_taken_from(rows: int) -> None:
    """A graph that makes new tensors in each step reads them as they are: they must be the beginning's own."""
    store = Store(onnxruntime.OrtValue, "cpu", ((1, 3),), (np.float32,))
    whole = store.cache([np.ones((1, 1, 5, 3), np.float32)], np.ones((1, 5), np.int64))
    first = beginning(store, whole, 4, rows=rows)
    assert first is not None
    assert first.values[0].shape() == [rows, 1, 4, 3]
    assert not np.shares_memory(first.values[0].numpy(), whole.values[0].numpy())
