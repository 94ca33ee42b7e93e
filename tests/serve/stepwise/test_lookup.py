"""Guesses from the text itself: what is found, how far ahead, and when guessing pauses."""

from __future__ import annotations

from edgetune.serve.stepwise.lookup import FIRST_GUESSES, FIRST_PAUSE, LONGEST_PAUSE, MOST_GUESSES, Lookup

QUOTED = [*range(10, 40), 1, 2]


def test_what_followed_the_last_tokens_is_guessed():
    lookup = Lookup([*QUOTED, 20, 21])
    assert lookup.guesses(99) == []
    lookup.push([22])
    assert lookup.guesses(99) == [23, 24, 25, 26]
    assert lookup.guesses(2) == [23, 24]
    assert lookup.guesses(0) == []
    assert lookup.tokens == len(QUOTED) + 3


def test_the_latest_place_counts_and_behind_the_end_it_begins_anew():
    lookup = Lookup([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3])
    assert lookup.guesses(99) == [8, 1, 2, 3]
    assert Lookup([7, 7, 7, 7]).guesses(99) == [7, 7, 7, 7]
    assert Lookup([5, 6, 4, 5, 6, 4, 5]).guesses(99) == [6, 4, 5, 6]
    assert Lookup([7, 7]).guesses(99) == []


def test_right_guesses_reach_further_and_wrong_ones_pause():
    lookup = Lookup([*QUOTED, 10, 11, 12])
    lengths = []
    for _ in range(3):
        lengths.append(len(lookup.guesses(99)))
        lookup.judge(lengths[-1], lengths[-1])
    assert lengths == [FIRST_GUESSES, 2 * FIRST_GUESSES, MOST_GUESSES]
    lookup.judge(MOST_GUESSES, 3)
    assert len(lookup.guesses(99)) == 3
    pauses = []
    for _ in range(6):
        lookup.judge(FIRST_GUESSES, 0)
        pauses.append(0)
        while not lookup.guesses(99):
            pauses[-1] += 1
    assert pauses == [FIRST_PAUSE, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE]
    assert (lookup.guessed, lookup.right) == (sum(lengths) + MOST_GUESSES + 6 * FIRST_GUESSES, sum(lengths) + 3)
