"""Outputs of a head on each token: where they stand in the text, and how windows of a long text come together.

Texts differ in tokens, so that their outputs are one array (texts, tokens, 2 + width) float32: the first two columns
are the characters at which a token begins and ends, the others its logits. Behind a text's last token `start` is -1 and
all else 0. Special tokens are left out; where words are answered
for, a word is what a token is here. A text longer than the model takes is read in overlapping windows, whose tokens
follow each other with one such empty place between two windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.codecs.tokens import EncodedTokens
from edgetune.serve.errors import InputError

BORDERS = 2

FloatArray = NDArray[np.float32]


def as_tokens(texts: Sequence[EncodedText]) -> list[EncodedTokens]:
    """The same texts, which were encoded with the borders of their tokens.

    Raises:
        InputError: one was not, such as a row of ids, which do not tell where they stand in a text.
    """
    encoded = [text for text in texts if isinstance(text, EncodedTokens)]
    if len(encoded) < len(texts):
        raise InputError("This bundle answers with the places of entities in a text.", expected="texts, not token ids")
    return encoded


def windows_of(texts: Sequence[EncodedText]) -> list[EncodedTokens]:
    """All windows of texts, in order.

    Raises:
        InputError: as `as_tokens`.
    """
    return [window for text in as_tokens(texts) for window in text.windows]


def assemble(texts: Sequence[EncodedTokens], outputs: Iterable[FloatArray], width: int) -> FloatArray:
    """The outputs of texts.

    Args:
        texts: as they were encoded.
        outputs: of all their windows in order, each (tokens or more, width) float32, padding behind its tokens.
        width: logits of a token.
    """
    rows = iter(outputs)
    lengths = [sum(len(window.places) + 1 for window in text.windows) - 1 for text in texts]
    together = empty(len(texts), max(lengths, default=0), width)
    for place, text in enumerate(texts):
        start = 0
        for window in text.windows:
            stop = start + len(window.places)
            together[place, start:stop, :BORDERS] = np.reshape(window.borders, (-1, BORDERS))
            together[place, start:stop, BORDERS:] = next(rows)[window.places]
            start = stop + 1
    return together


def with_first_rows(texts: Sequence[EncodedTokens], outputs: Sequence[FloatArray], together: FloatArray) -> FloatArray:
    """Outputs of texts behind a row without a place, which holds what the first token of a text's first window has.

    Args:
        texts: as they were encoded.
        outputs: as `assemble` takes them.
        together: as it gives them, (texts, tokens, 2 + width).

    Returns:
        (texts, 1 + tokens, 2 + width) float32.
    """
    first, window = empty(len(texts), 1, together.shape[2] - BORDERS), 0
    for place, text in enumerate(texts):
        first[place, 0, BORDERS:] = outputs[window][0]
        window += len(text.windows)
    return np.concatenate([first, together], axis=1)


def empty(texts: int, tokens: int, width: int) -> FloatArray:
    """Outputs without a token: (texts, tokens, 2 + width)."""
    together = np.zeros((texts, tokens, BORDERS + width), dtype=np.float32)
    together[:, :, 0] = -1
    return together


def by_position(logits: FloatArray, visible: NDArray[np.bool_]) -> FloatArray:
    """Outputs of rows whose tokens stand for themselves: borders are a token's place and the one behind it.

    Args:
        logits: (rows, tokens, width) float32.
        visible: (rows, tokens) bool, False for tokens that are not answered for, and padding.
    """
    rows, tokens, width = logits.shape
    together = empty(rows, tokens, width)
    for row in range(rows):
        places = np.flatnonzero(visible[row])
        together[row, : len(places), 0], together[row, : len(places), 1] = places, places + 1
        together[row, : len(places), BORDERS:] = logits[row, places]
    return together


def split_windows(row: FloatArray) -> list[FloatArray]:
    """The windows of one text's outputs (tokens, 2 + width), each without padding; none of a text without a token."""
    places = np.flatnonzero(row[:, 0] >= 0)
    if not len(places):
        return []
    return [row[window] for window in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)]


def logits_of(row: FloatArray) -> FloatArray:
    """The logits of one row in one dimension: of a text's tokens one after the other, of any other head as they are."""
    return row if row.ndim == 1 else np.ravel(row[row[:, 0] >= 0, BORDERS:])


def difference(outputs: FloatArray, others: FloatArray) -> FloatArray:
    """Absolute differences of two models' outputs of the same texts, of tokens with the same borders alone.

    Another vocabulary may split a text otherwise, and then there is nothing to compare.
    """
    if outputs.ndim == 2:
        return np.asarray(np.abs(outputs - others))
    tokens = min(outputs.shape[1], others.shape[1])
    one, other = outputs[:, :tokens], others[:, :tokens]
    same = (one[..., :BORDERS] == other[..., :BORDERS]).all(axis=-1) & (one[..., 0] >= 0)
    return np.abs(one - other)[same][:, BORDERS:] if same.any() else np.zeros((1, 1), dtype=np.float32)
