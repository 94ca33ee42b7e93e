"""Metrics of vectors: whether a text's nearest neighbours belong to it, and whether likeness goes with given scores.

What is expected of a row is three whole numbers: `KEY` names the group that it belongs to (of scored pairs the pair),
`ROLE` what it is there, `MARK` the text itself (of scored pairs the score in millionths). A row is a text, and answers
are vectors (rows, width), dense or scipy CSR. Statistics are of queries or pairs, not of rows. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.heads.embedding import unit
from edgetune.tune.metrics import Metric, Statistics

KEY, ROLE, MARK = 0, 1, 2
# Of a text in its group: any of equals, what is looked for with, what is to be found, what is not to be; or of a pair.
EQUAL, QUERY, DOCUMENT, NEGATIVE, SCORED = range(5)

DEPTH = 10
# Similarities nearer than this are ties, and a tie counts as lost: one vector for all texts finds nothing.
TIE = 1e-6
_CELLS = 8_000_000  # similarities at once: 32 MB

Expected = NDArray[np.int64]


def is_scored(expected: Expected) -> bool:
    """Whether rows are halves of scored pairs."""
    return bool(len(expected)) and int(expected[0, ROLE]) == SCORED


def query_rows(expected: Expected) -> NDArray[np.int64]:
    """The rows that are looked for with and have something to be found: (queries,) int64, ascending.

    A text that stands in the data twice is no find for itself.
    """
    offered = np.isin(expected[:, ROLE], (EQUAL, DOCUMENT))
    marks: dict[int, set[int]] = {}
    for key, mark in expected[offered][:, (KEY, MARK)].tolist():
        marks.setdefault(key, set()).add(mark)
    asks = np.flatnonzero(np.isin(expected[:, ROLE], (EQUAL, QUERY)))
    return np.asarray(
        [row for row in asks.tolist() if marks.get(int(expected[row, KEY]), set()) - {int(expected[row, MARK])}],
        dtype=np.int64,
    )


def ranks(expected: Expected, vectors: Any) -> NDArray[np.int64]:
    """The rank of each query's best find among all texts that are offered, 1 for the nearest: (queries,) int64.

    Texts of the query's group are finds, wherever else they stand too; all others are not, and ties with them count
    against the query.

    Args:
        expected: (rows, 3) int64.
        vectors: (rows, width), dense or CSR, of any length; compared by their cosine.
    """
    queries = query_rows(expected)
    offered = np.flatnonzero(np.isin(expected[:, ROLE], (EQUAL, DOCUMENT, NEGATIVE)))
    vectors = vectors if hasattr(vectors, "tocsr") else unit(np.asarray(vectors, dtype=np.float32))
    documents = vectors[offered].T
    keys, marks = expected[offered, KEY], expected[offered, MARK]
    is_find = expected[offered, ROLE] != NEGATIVE
    found = np.empty(len(queries), dtype=np.int64)
    step = max(1, _CELLS // max(1, len(offered)))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        product = vectors[block] @ documents
        alike = product.toarray() if hasattr(product, "toarray") else np.asarray(product)
        finds = _also_elsewhere((keys[None] == expected[block, KEY, None]) & is_find[None], marks)
        itself = marks[None] == expected[block, MARK, None]
        best = np.where(finds & ~itself, alike, -np.inf).max(axis=1)
        before = (alike >= best[:, None] - TIE) & ~finds & ~itself
        found[start : start + step] = 1 + before.sum(axis=1)
    return found


def _also_elsewhere(finds: NDArray[np.bool_], marks: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Finds (queries, texts) with the same texts in other places, where any stands in several."""
    _, places, counts = np.unique(marks, return_inverse=True, return_counts=True)
    if counts.max(initial=0) < 2:
        return finds
    same = np.zeros((len(finds), len(counts)), dtype=bool)
    for row in range(len(finds)):
        same[row, places[finds[row]]] = True
    return same[:, places]


def halves(expected: Expected) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the first and of the second text of each scored pair, (pairs,) int64 each; a half alone is left out."""
    order = np.argsort(expected[:, KEY], kind="stable")
    together = np.flatnonzero(expected[order[1:], KEY] == expected[order[:-1], KEY])
    return order[together], order[together + 1]


def cosines(expected: Expected, vectors: Any) -> NDArray[np.float64]:
    """Cosine of each scored pair, (pairs,) float64."""
    first, second = halves(expected)
    if hasattr(vectors, "tocsr"):
        return np.asarray(vectors[first].multiply(vectors[second]).sum(axis=1), dtype=np.float64).ravel()
    scaled = unit(np.asarray(vectors, dtype=np.float32)).astype(np.float64)
    return np.asarray((scaled[first] * scaled[second]).sum(axis=1))


def _within(most: int) -> Callable[[Expected, Any], Statistics]:
    def rows(expected: Expected, vectors: Any) -> Statistics:
        found = ranks(expected, vectors) <= most
        return np.stack([found.astype(np.float64), np.ones(len(found))], axis=1)

    return rows


def _reciprocal(expected: Expected, vectors: Any) -> Statistics:
    rank = ranks(expected, vectors)
    return np.stack([np.where(rank <= DEPTH, 1 / rank, 0.0), np.ones(len(rank))], axis=1)


def _rank_products(expected: Expected, vectors: Any) -> Statistics:
    """Ranks of scores and of cosines over all pairs, centred and scaled to one, and their products: (pairs, 6)."""
    from scipy import stats

    first, _ = halves(expected)
    given = stats.rankdata(expected[first, MARK])
    measured = stats.rankdata(np.round(cosines(expected, vectors), 6))
    x, y = ((values - (len(values) + 1) / 2) / max(1, len(values)) for values in (given, measured))
    return np.stack([x, y, x * x, y * y, x * y, np.ones(len(x))], axis=1)


def _correlation(sums: Statistics) -> NDArray[np.float64]:
    x, y, xx, yy, xy, count = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    spread = np.sqrt(np.maximum(count * xx - x * x, 0) * np.maximum(count * yy - y * y, 0))
    return np.asarray(np.divide(count * xy - x * y, spread, out=np.zeros_like(spread), where=spread > 1e-12))


def _mean(sums: Statistics) -> NDArray[np.float64]:
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1e-12))


RECALLS = tuple(
    Metric(f"recall_at_{most}", _within(most), _mean, is_share=True, compares_rows=True) for most in (1, 5, DEPTH)
)
MRR = Metric(f"mrr_at_{DEPTH}", _reciprocal, _mean, compares_rows=True)
# Spearman's correlation is Pearson's of the ranks: a sum over pairs, whose ranks stay those among all pairs.
SPEARMAN = Metric("spearman", _rank_products, _correlation, compares_rows=True)
