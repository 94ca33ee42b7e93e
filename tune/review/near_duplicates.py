"""Rows whose texts are nearly the same: across parts they make a score better than it is.

MinHash over shingles of characters with locality-sensitive hashing (Broder 1997; datasketch) proposes rows, their exact
Jaccard similarity decides. Each row is held against the first row of its kind alone, so that thousands of alike rows
take no longer than others. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.tune.data.rows import Input, as_line, key

SHINGLE = 3  # characters
PERMUTATIONS = 128
# Rows are proposed from a lower similarity on, so that few above the threshold are missed; the index needs two bands.
MARGIN, MOST_PROPOSED = 0.1, 0.9
MOST_CHARACTERS = 2_000  # of a text that are compared


@dataclass(frozen=True)
class NearDuplicate:
    """A row that nearly repeats another.

    Attributes:
        row, of: positions among the rows that were given, `of` before `row`.
        similarity: shared shingles in all shingles of both, from the threshold to 1.
    """

    row: int
    of: int
    similarity: float


def near_duplicates(inputs: Sequence[Input], threshold: float) -> list[NearDuplicate]:
    """Each row that nearly repeats an earlier one, with the most similar of those that repeat none themselves.

    Rows that are the same but for case and spacing are no near duplicates: a build removes or counts them.

    Args:
        inputs: texts or pairs of texts.
        threshold: the least Jaccard similarity, above 0 and at most 1.
    """
    from datasketch import MinHash, MinHashLSH

    keys = [as_line(key(given))[:MOST_CHARACTERS] for given in inputs]
    shingles = [_shingles(text) for text in keys]
    encoded = ([piece.encode("utf-8", "surrogatepass") for piece in sorted(pieces)] for pieces in shingles)
    index = MinHashLSH(threshold=min(max(threshold - MARGIN, 0.1), MOST_PROPOSED), num_perm=PERMUTATIONS)
    repeated: list[NearDuplicate] = []
    for row, signature in enumerate(MinHash.generator(encoded, num_perm=PERMUTATIONS)):
        alike = [(_jaccard(shingles[row], shingles[of]), -of) for of in index.query(signature)]
        similarity, of = max(alike, default=(0.0, 0))
        if similarity < threshold:
            index.insert(row, signature)
        elif keys[row] != keys[-of]:
            repeated.append(NearDuplicate(row, -of, similarity))
    return repeated


def _shingles(text: str) -> frozenset[str]:
    return frozenset(text[place : place + SHINGLE] for place in range(max(1, len(text) - SHINGLE + 1)))


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)
