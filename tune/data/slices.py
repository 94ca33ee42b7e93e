"""Rows drawn from a part by seed: a file that is sorted by topic has one topic among its first rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Row = TypeVar("Row")


def frozen_indices(rows: int, most: int, seed: int) -> NDArray[np.int64]:
    """At most `most` of `rows` row numbers, the same for the same seed and numbers, ascending: (drawn,) int64."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def spread_evenly(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` of the rows at equal distances, the first and the last among them."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    return [rows[place] for place in dict.fromkeys(places.tolist())]


def frozen_rows(rows: Sequence[Row], most: int, seed: int) -> tuple[Row, ...]:
    """At most `most` of the rows, the same for the same seed and number of rows, in their order."""
    return tuple(rows[index] for index in frozen_indices(len(rows), most, seed))
