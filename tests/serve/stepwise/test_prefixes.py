"""The longest known beginning is found, memory is bounded, and what is pinned stays."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from edgetune.serve.errors import InputError
from edgetune.serve.stepwise.cache import Cache
from edgetune.serve.stepwise.prefixes import Prefixes, common_tokens


class _Value:
    def __init__(self, size: int) -> None:
        self._size = size

    def tensor_size_in_bytes(self) -> int:
        return self._size


def _cache(tokens: int) -> Cache:
    """Ten bytes a token."""
    return Cache((cast("Any", _Value(10 * tokens)),), np.ones((1, tokens), dtype=np.int64))


ONE = tuple(range(100, 120))
OTHER = (*ONE[:12], *range(20))
FAR = tuple(range(30))


def test_the_longest_beginning_is_found() -> None:
    prefixes = Prefixes(10_000)
    assert prefixes.find(ONE) == (0, None)
    first, second = _cache(20), _cache(32)
    prefixes.keep(ONE, first)
    prefixes.keep(OTHER, second)
    assert prefixes.find((*ONE, 1, 2)) == (20, first)
    assert prefixes.find(OTHER[:15]) == (15, second)
    assert prefixes.find(ONE[:7]) == (0, None), "too short to be worth a copy"
    assert prefixes.find(FAR) == (0, None)


def test_the_one_used_longest_ago_goes_first() -> None:
    prefixes = Prefixes(700)
    prefixes.keep(ONE, _cache(20))
    prefixes.keep(FAR, _cache(30))
    prefixes.find(ONE)
    prefixes.keep(OTHER, _cache(32))
    assert prefixes.size_bytes == 520
    assert prefixes.find(FAR) == (0, None)
    assert prefixes.find(ONE)[0] == 20


def test_a_longer_one_takes_the_place_of_its_beginning() -> None:
    prefixes = Prefixes(10_000)
    prefixes.keep(ONE, _cache(20))
    prefixes.keep((*ONE, 5), _cache(21))
    assert prefixes.size_bytes == 210


def test_what_is_larger_than_all_memory_is_not_kept() -> None:
    prefixes = Prefixes(150)
    prefixes.keep(ONE, _cache(20))
    assert prefixes.size_bytes == 0


def test_what_is_pinned_stays_and_is_refused_where_it_does_not_fit() -> None:
    prefixes = Prefixes(500)
    prefixes.keep(ONE, _cache(20), pinned=True)
    prefixes.keep((*ONE, 5), _cache(21))
    prefixes.keep(FAR, _cache(30))
    assert prefixes.find(ONE)[0] == 20
    assert prefixes.size_bytes == 500
    with pytest.raises(InputError, match="32 tokens takes 320 bytes"):
        prefixes.keep(OTHER, _cache(32), pinned=True)
    prefixes.clear()
    assert prefixes.size_bytes == 0


@pytest.mark.parametrize(
    ("one", "other", "common"), [((), (1,), 0), ((1, 2), (1, 2, 3), 2), ((1, 2), (1, 3), 1), ((2,), (1,), 0)]
)
def test_common_tokens(one: tuple[int, ...], other: tuple[int, ...], common: int) -> None:
    assert common_tokens(one, other) == common_tokens(other, one) == common
