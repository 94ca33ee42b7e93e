"""The codec of tokens: borders of every token, and long texts in windows that overlap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgetune.serve.codecs import open_codec
from edgetune.serve.codecs.tokens import EncodedTokens, joined_words, shared_tokens
from edgetune.serve.errors import InputError
from edgetune.serve.token_outputs import as_tokens, assemble, difference, split_windows, windows_of
from tests.golden.kinds import GOLDEN

MOST = 12


@pytest.fixture
def codec():
    return open_codec("tokens", GOLDEN, MOST)


def test_every_token_tells_the_characters_it_covers(codec):
    text = "  where is\tmy parcel ?"
    (row,) = as_tokens(codec.encode([text]))
    assert next(text[start:end] for start, end in row.borders) == "where"
    assert [row.ids[place] for place in row.places] == row.ids[1:-1]
    assert all(text[start:end].strip() == text[start:end] for start, end in row.borders)
    assert (row.text, row.truncated, row.windows) == (text, False, (row,))


def test_words_are_runs_of_letters_each_answered_for_by_its_first_token():
    codec = open_codec("words", GOLDEN, 64)
    text = "parcels O'Neil, new-york's 12th Cafe\u0301s \u5317\u4eac \u0e44\u0e17\u0e22 ok!"
    (row,) = as_tokens(codec.encode([text]))
    (tokens,) = as_tokens(open_codec("tokens", GOLDEN, 64).encode([text]))
    assert row.ids == tokens.ids
    words = [text[start:end] for start, end in row.borders]
    thai = words[-5:-2] if words[-3] == "\u0e22" else words[-3:-2]
    assert words[:12] == ["parcels", "O", "'", "Neil", ",", "new", "-", "york", "'", "s", "12th", "Cafe\u0301s"]
    assert words[12:14] == ["\u5317", "\u4eac"]
    assert "".join(thai) == "\u0e44\u0e17\u0e22"  # one unknown token, or three
    assert words[-2:] == ["ok", "!"]
    starts = {start: place for place, (start, _) in zip(reversed(tokens.places), reversed(tokens.borders), strict=True)}
    assert row.places == [starts[start] for start, _ in row.borders]


@pytest.mark.parametrize(
    ("text", "borders", "words"),
    [
        ("unable to", [(0, 2), (2, 6), (7, 9)], [(0, 6), (7, 9)]),
        ("cafe\u0301s", [(0, 4), (4, 6)], [(0, 6)]),
        ("x\u00f1_1", [(0, 1), (1, 3), (3, 4)], [(0, 4)]),
        ("a-b", [(0, 1), (1, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)]),
        ("\U0001f600x", [(0, 1), (0, 1), (1, 2)], [(0, 1), (1, 2)]),  # bytes of one sign are tokens of it
        ("\u5317\u4eac", [(0, 1), (1, 2)], [(0, 1), (1, 2)]),
        ("\u0e17\u0e35\u0e48", [(0, 1), (1, 3)], [(0, 1), (1, 3)]),  # Thai, with its marks
        ("", [], []),
    ],
)
def test_tokens_of_one_word_are_joined(text, borders, words):
    places, joined = joined_words(text, range(1, len(borders) + 1), borders)
    assert joined == words
    assert places == [1 + [start for start, _ in borders].index(start) for start, _ in words]


def test_a_long_text_is_read_whole_in_windows_that_share_tokens(codec):
    text = " ".join(["where is my parcel"] * 12)
    (row,) = as_tokens(codec.encode([text]))
    windows = row.windows
    assert len(windows) > 2
    assert all(window.size <= MOST for window in windows)
    for before, after in itertools.pairwise(windows):
        assert before.borders[-shared_tokens(MOST) :] == after.borders[: shared_tokens(MOST)]
    assert windows[0].borders[0][0] == 0
    assert windows[-1].borders[-1][1] == len(text)
    assert row.all_ids == [number for window in windows for number in window.ids]
    assert windows_of([row, row]) == [*windows, *windows]


def test_outputs_of_windows_come_together_and_apart_again(codec):
    texts = as_tokens(codec.encode(["where is my parcel " * 5, "card", ""]))
    rows = [np.full((MOST, 3), number, dtype=np.float32) for number, _ in enumerate(windows_of(texts))]
    together = assemble(texts, rows, 3)
    assert together.shape == (3, sum(len(window.places) + 1 for window in texts[0].windows) - 1, 5)
    parts = split_windows(together[0])
    assert [part[:, :2].tolist() for part in parts] == [
        [list(map(float, borders)) for borders in window.borders] for window in texts[0].windows
    ]
    assert [set(part[:, 2].tolist()) for part in parts] == [{float(number)} for number, _ in enumerate(parts)]
    assert split_windows(together[2]) == []
    assert not difference(together, together).any()
    other = together.copy()
    other[1, 0, 3] += 0.5
    other[0, :, 0] += 1  # split otherwise: not compared
    assert difference(together, other).max() == 0.5


def test_samples_have_a_border_a_token(codec):
    rows = as_tokens(codec.samples([1, MOST]))
    assert [(row.size, len(row.borders), len(row.places)) for row in rows] == [(1, 1, 1), (MOST, MOST, MOST)]


def test_what_is_no_text_or_has_no_borders_is_refused(codec):
    with pytest.raises(InputError, match="Text 0 is of type int"):
        codec.encode([5])
    with pytest.raises(InputError, match="places of entities"):
        windows_of(open_codec("text", GOLDEN, MOST).encode(["card"]))
    assert isinstance(codec.encode(["card"])[0], EncodedTokens)
