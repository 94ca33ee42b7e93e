"""Metrics of vectors, on vectors whose neighbours are known by hand, and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from edgetune.tune.retrieval import (
    DOCUMENT,
    EQUAL,
    MRR,
    NEGATIVE,
    QUERY,
    RECALLS,
    SCORED,
    SPEARMAN,
    halves,
    query_rows,
    ranks,
)


def turned(*degrees: float) -> np.ndarray:
    """Vectors in a plane, by their angle."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


# Two groups: a query and a document each, and a negative of the first.
PAIRS = np.array([[0, QUERY, 0], [0, DOCUMENT, 1], [1, QUERY, 2], [1, DOCUMENT, 3], [0, NEGATIVE, 4]])


def test_the_rank_counts_all_texts_that_are_nearer() -> None:
    assert ranks(PAIRS, turned(0, 10, 90, 80, 180)).tolist() == [1, 1]
    assert ranks(PAIRS, turned(0, 30, 90, 80, 20)).tolist() == [2, 1]  # the negative is nearer
    assert ranks(PAIRS, turned(0, 80, 90, 10, 5)).tolist() == [3, 2]


def test_the_length_of_vectors_does_not_count() -> None:
    vectors = turned(0, 30, 90, 80, 20) * np.array([[1], [9], [2], [5], [3]], dtype=np.float32)
    assert ranks(PAIRS, vectors).tolist() == [2, 1]
    assert ranks(PAIRS, sparse.csr_matrix(turned(0, 30, 90, 80, 20))).tolist() == [2, 1]


def test_one_vector_for_all_texts_finds_nothing() -> None:
    same = np.ones((5, 1), dtype=np.float32)
    assert ranks(PAIRS, same).tolist() == [3, 3]
    assert RECALLS[0].of(PAIRS, same) == 0


def test_a_text_is_no_find_for_itself() -> None:
    labels = np.array([[0, EQUAL, 0], [0, EQUAL, 0], [0, EQUAL, 1], [1, EQUAL, 2], [1, EQUAL, 3], [2, EQUAL, 4]])
    assert query_rows(labels).tolist() == [0, 1, 2, 3, 4]  # the last label has one text
    assert ranks(labels, turned(0, 0, 40, 20, 25, 90)).tolist() == [3, 3, 3, 1, 1]


def test_a_find_counts_wherever_its_text_stands() -> None:
    twice = np.array([[0, QUERY, 0], [0, DOCUMENT, 1], [1, QUERY, 2], [1, DOCUMENT, 1], [1, DOCUMENT, 3]])
    assert ranks(twice, turned(0, 10, 90, 10, 100)).tolist() == [1, 1]


def test_recall_and_mean_reciprocal_rank() -> None:
    vectors = turned(0, 30, 90, 80, 20)
    assert [metric.of(PAIRS, vectors) for metric in RECALLS] == [0.5, 1, 1]
    assert MRR.of(PAIRS, vectors) == 0.75
    before, after = MRR.pair(PAIRS, vectors, turned(0, 10, 90, 80, 180))
    assert before.tolist() == [[0.5, 1], [1, 1]]
    assert after.tolist() == [[1, 1], [1, 1]]


def test_a_rank_beyond_ten_is_worth_nothing() -> None:
    expected = np.array([[0, QUERY, 0], [0, DOCUMENT, 1], *([2 + place, DOCUMENT, 2 + place] for place in range(12))])
    vectors = turned(0, 90, *range(12))
    assert ranks(expected, vectors).tolist() == [13]
    assert MRR.of(expected, vectors) == RECALLS[-1].of(expected, vectors) == 0


def test_spearman_is_that_of_scipy() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(80, 5)).astype(np.float32)
    scores = draw.integers(0, 6, 40)  # with ties
    expected = np.stack([np.repeat(np.arange(40), 2), np.full(80, SCORED), np.repeat(scores, 2)], axis=1)
    first, second = halves(expected)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = stats.spearmanr(scores, np.round((unit[first] * unit[second]).sum(axis=1), 6)).statistic
    assert SPEARMAN.of(expected, vectors) == pytest.approx(truth, abs=1e-9)
    assert SPEARMAN.of(expected, np.ones((80, 1), dtype=np.float32)) == 0


def test_half_a_pair_judges_nothing() -> None:
    expected = np.array([[0, SCORED, 5], [1, SCORED, 7], [1, SCORED, 7]])
    first, second = halves(expected)
    assert (first.tolist(), second.tolist()) == ([1], [2])
