"""A stratified split by seed that gives every class a training row and, where it has five, a test row.

Classes of fewer rows go to training first; which of them lend a row to the other parts is settled so that the parts
have their shares of all rows.

Own arithmetic, because scikit-learn's stratified split refuses a class with fewer rows than parts
(`The least populated class in y has only 1 member`), and user data has such classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
FEW_ROWS = 5  # a class with fewer is promised no test row


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, ascending: (rows of the part,) int64; together every row once."""

    train: Indices
    validation: Indices
    test: Indices


def split_rows(classes: Sequence[Hashable], shares: tuple[float, float, float], *, seed: int) -> Split:
    """Split rows into training, validation and test rows, each class by itself.

    Args:
        classes: what each row counts as, such as its class number, (rows,).
        shares: of the training, validation and test part; they sum to 1.
        seed: the same seed gives the same split on every machine.

    Each class gives each part its exact share, rounded up or down; which of both is settled so that the
    roundings of all classes together cancel out. A part with a share gets a row wherever a class can spare one.
    """
    places = {kind: place for place, kind in enumerate(sorted(set(classes), key=_order))}
    numbers = np.asarray([places[kind] for kind in classes], dtype=np.int64)
    exact = np.asarray(shares) / sum(shares)
    random = np.random.default_rng(seed)
    carry = np.zeros(3)
    parts: list[list[Indices]] = [[], [], []]
    for number in np.unique(numbers):
        rows = random.permutation(np.flatnonzero(numbers == number))
        counts = _counts(len(rows), exact, carry)
        carry = carry + len(rows) * exact - counts
        for part, chosen in zip(parts, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
            part.append(chosen)
    _fill_empty(parts, exact)
    return Split(*(np.sort(np.concatenate([*part, np.zeros(0, np.int64)])) for part in parts))


def _fill_empty(parts: list[list[Indices]], shares: NDArray[np.float64]) -> None:
    """Give the last training row of the largest class to a part that has a share and no row, the test part first."""
    for part in (2, 1):
        largest = max(range(len(parts[0])), key=lambda place: len(parts[0][place]), default=0)
        if shares[part] > 0 and not sum(map(len, parts[part])) and parts[0] and len(parts[0][largest]) > 1:
            parts[part].append(parts[0][largest][-1:])
            parts[0][largest] = parts[0][largest][:-1]


def _order(kind: Hashable) -> tuple[bool, object]:
    """Numbers by value, everything else by its words, so that the order is the same on every machine."""
    return (False, kind) if isinstance(kind, (int, float)) else (True, repr(kind))


def _counts(rows: int, shares: NDArray[np.float64], carry: NDArray[np.float64]) -> Indices:
    """How many of a class's `rows` each part gets: largest remainder, with what earlier classes left over.

    Args:
        shares, carry: (3,) float64; carry is in rows.
    """
    # Rounded, so that 20 * 0.15 is 3 and not 2.9999999999999996.
    quotas = np.round(rows * shares, 9)
    counts = np.floor(quotas).astype(np.int64)
    claims = np.where(quotas > counts, quotas - counts + carry, -np.inf)
    counts[np.argsort(-claims, kind="stable")[: rows - counts.sum()]] += 1
    if rows and counts[0] == 0:
        _give(counts, quotas, to=0)
    if rows >= FEW_ROWS and counts[2] == 0 and shares[2] > 0:
        _give(counts, quotas, to=2)
    return counts


def _give(counts: Indices, quotas: NDArray[np.float64], *, to: int) -> None:
    """Move one row to the part `to` from the one that is most above its share and can spare it."""
    spare = np.where(counts > (np.arange(3) == 0), counts - quotas, -np.inf)
    counts[np.argmax(spare)] -= 1
    counts[to] += 1
