"""What a review proposes: rows that nearly repeat others, and planted wrong labels."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.tune.data.dataset import Part
from edgetune.tune.review.near_duplicates import near_duplicates
from edgetune.tune.review.suspects import label_suspects
from edgetune.tune.tasks import TASKS
from tests.conftest import toy_sentences

BASE = "where is the card that i ordered from your shop three weeks ago"


def test_near_duplicates_are_found_with_their_exact_similarity():
    near = BASE + "?"
    texts = [BASE, "my password is wrong", near, BASE.upper(), ("a", "b"), ("a", "c")]
    [found] = near_duplicates(texts, 0.8)  # the same but for case is none
    assert (found.row, found.of) == (2, 0)
    trigrams = len({BASE[place : place + 3] for place in range(len(BASE) - 2)})
    assert found.similarity == pytest.approx(trigrams / (trigrams + 1))
    assert near_duplicates(texts, found.similarity + 1e-6) == []


def test_of_thousands_of_alike_rows_each_is_held_against_the_first():
    texts = [f"{BASE} {number}" for number in range(2_000)]
    found = near_duplicates(texts, 0.7)
    assert {pair.of for pair in found} == {0}
    assert len(found) == len(texts) - 1


def test_texts_shorter_than_a_shingle_and_broken_unicode_are_compared_too():
    assert near_duplicates(["", "a", "b", "\ud800", "ab"], 0.8) == []


def test_planted_wrong_labels_come_first():
    """Six sentences in a hundred get another label; key words tell the labels apart, so that a model can find them."""
    rows = toy_sentences()
    labels = sorted({label for _, label in rows})
    targets = [labels.index(label) for _, label in rows]
    planted = np.random.default_rng(2).choice(len(rows), 6, replace=False).tolist()
    for row in planted:
        targets[row] = (targets[row] + 1) % len(labels)
    part = Part(tuple(text for text, _ in rows), tuple(targets))
    found = label_suspects(part, TASKS["text-classification"].objective(tuple(labels), "", targets))
    assert len(set(planted) & {suspect.row for suspect in found}) >= 5
    right = {suspect.row: labels[suspect.suggested] for suspect in found if suspect.row in planted}
    assert sum(right[row] == rows[row][1] for row in right) >= 5
    probabilities = [suspect.given_probability for suspect in found]
    assert probabilities == sorted(probabilities)
    assert all(suspect.given == targets[suspect.row] != suspect.suggested for suspect in found)


def test_two_labels_are_told_apart():
    texts = tuple(f"{word} film number {number}" for number in range(40) for word in ("good", "bad"))
    targets = [0, 1] * 40
    targets[10] = 1
    [found] = label_suspects(
        Part(texts, tuple(targets)), TASKS["text-classification"].objective(("g", "b"), "", targets)
    )
    assert (found.row, found.given, found.suggested) == (10, 1, 0)
