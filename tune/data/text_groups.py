"""Groups of texts that belong together: pairs that share a text are of one group, by union-find (Tarjan 1975)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgetune.tune.data.rows import key

# Groups with a larger share of the records are joined by texts that go with everything, such as "yes".
MOST_SHARE, FEWEST_RECORDS = 0.2, 20


def joined_groups(records: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """The group of each record, numbered from 0 by first sight: records that share an anchor or a positive are of one.

    Where that would put more than `MOST_SHARE` of them into one group, records that share an anchor alone are.

    Args:
        records: anchor, positive and what else there is of each.
    """
    groups = _joined([record[:2] for record in records])
    if len(records) >= FEWEST_RECORDS and np.bincount(groups).max() > MOST_SHARE * len(records):
        return _joined([record[:1] for record in records])
    return groups


def _joined(records: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    parents: dict[object, object] = {}

    def root(text: object) -> object:
        parents.setdefault(text, text)
        while parents[text] != text:
            parents[text] = parents[parents[text]]
            text = parents[text]
        return text

    for record in records:
        first, *others = (key(text) for text in record)
        for other in others:
            parents[root(other)] = root(first)
    numbers: dict[object, int] = {}
    return np.asarray([numbers.setdefault(root(key(record[0])), len(numbers)) for record in records], dtype=np.int64)
