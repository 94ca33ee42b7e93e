"""Texts for a head on each token: ids with the characters that every token covers, long texts in overlapping windows.

A head may answer for words instead, each by its first token: then the other tokens of a word are read, and not asked.

Windows are those of `transformers`' token-classification pipeline with `stride`: both leave them to the tokenizers
library. Must not import numpy.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import msgspec
from tokenizers import Encoding

from edgetune.serve.codecs import Input
from edgetune.serve.codecs.text import EncodedText, TextCodec, run_tokenizer

# Tokens that two windows share, as a part of the longest input: what stands at a window's end is read again with as
# much behind it. A part of the bundle's format.
SHARED_PART = 4
# Scripts that put no blanks between words: Thai and Lao, Tibetan, Burmese, Khmer, kana and Chinese characters. A part
# of the bundle's format.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class EncodedTokens(EncodedText, frozen=True):
    """One window of a text, the first with those behind it; nothing of a text is cut.

    Attributes:
        text: that it is a window of.
        places: of the tokens that are answered for: all but special ones, or the first of each word.
        borders: the first character of each of these, or of its word, and the one behind the last, in the whole text.
        further: the windows behind the first.
    """

    text: str = ""
    places: list[int] = msgspec.field(default_factory=list)
    borders: list[tuple[int, int]] = msgspec.field(default_factory=list)
    further: tuple[EncodedTokens, ...] = ()

    @property
    def windows(self) -> tuple[EncodedTokens, ...]:
        """All windows."""
        return (self, *self.further)

    @property
    def all_ids(self) -> list[int]:
        """The ids of all windows."""
        return [number for window in self.windows for number in window.ids]

    @classmethod
    def of(cls, text: str, encodings: Sequence[Encoding], pad_id: int, *, by_word: bool = False) -> EncodedTokens:
        """A text by the encodings of its windows; `by_word` has one place a word."""
        first, *others = (cls._window(text, encoding, pad_id, by_word) for encoding in encodings)
        return cls(first.ids, first.type_ids, False, text, first.places, first.borders, tuple(others))

    @classmethod
    def _window(cls, text: str, encoding: Encoding, pad_id: int, by_word: bool) -> EncodedTokens:
        special, offsets = encoding.special_tokens_mask, encoding.offsets
        places = [place for place, is_special in enumerate(special) if not is_special]
        borders = [_without_blanks(text, *offsets[place]) for place in places]
        if by_word:
            places, borders = joined_words(text, places, borders)
        # Where the tokenizer adds no special tokens, a text without a token is read as one of padding.
        return cls(encoding.ids or [pad_id], encoding.type_ids or [0], False, text, places, borders)


class TokensCodec(TextCodec):
    """Single texts with the borders of their tokens; `samples` have a character a token."""

    by_word = False

    def __init__(self, folder: Path, max_tokens: int) -> None:
        super().__init__(folder, max_tokens)
        self._tokenizer.enable_truncation(max_tokens, stride=shared_tokens(max_tokens))

    def encode(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """Windows of each text, in order.

        Raises:
            InputError: a text is no string, or no valid Unicode.
        """
        texts = self.texts(inputs)
        encodings = run_tokenizer(self._tokenizer, texts)
        return [
            EncodedTokens.of(text, [encoding, *encoding.overflowing], self._pad_id, by_word=self.by_word)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def encode_beginnings(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """As `encode`: every character is read."""
        return self.encode(inputs)

    def samples(self, sizes: Sequence[int]) -> list[EncodedText]:
        """A row of each of these sizes, whose tokens cover a character each."""
        return [
            EncodedTokens(
                row.ids, row.type_ids, False, "x" * row.size, [*range(row.size)], [(i, i + 1) for i in range(row.size)]
            )
            for row in super().samples(sizes)
        ]


class WordsCodec(TokensCodec):
    """Single texts with the borders of their words, each answered for by its first token."""

    by_word = True


class TextAndTokensCodec(TokensCodec):
    """As `TokensCodec`, for tasks on whole texts beside those on tokens: they read the first window, and a text with
    further ones is truncated for them."""

    def encode(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """Windows of each text, in order; raises as `TokensCodec`."""
        rows = super().encode(inputs)
        return [msgspec.structs.replace(row, truncated=True) if len(windows(row)) > 1 else row for row in rows]


class TextAndWordsCodec(TextAndTokensCodec):
    """As `WordsCodec`, for tasks on whole texts beside those on words."""

    by_word = True


def windows(row: EncodedText) -> tuple[EncodedText, ...]:
    """The windows of a text, one where it was not encoded by tokens."""
    return row.windows if isinstance(row, EncodedTokens) else (row,)


def shared_tokens(max_tokens: int) -> int:
    """Tokens that two windows of a text share, special ones not counted."""
    return max_tokens // SHARED_PART


def joined_words(
    text: str, places: Sequence[int], borders: Sequence[tuple[int, int]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """The first token of each word, and the borders of the words.

    A token goes on with the word before it where both meet within a run of letters and digits, or cover one character
    together.
    """
    firsts: list[int] = []
    words: list[tuple[int, int]] = []
    for place, (start, end) in zip(places, borders, strict=True):
        if words and (start < words[-1][1] or (start == words[-1][1] and _is_within_word(text, start))):
            words[-1] = (words[-1][0], max(end, words[-1][1]))
        else:
            firsts.append(place)
            words.append((start, end))
    return firsts, words


def _is_within_word(text: str, place: int) -> bool:
    """Whether the characters before and at a place belong to one word."""
    return 0 < place < len(text) and _is_letter(text[place - 1]) and _is_letter(text[place])


def _is_letter(character: str) -> bool:
    """Whether a character is a letter, a digit, or a mark on one, of a script with blanks between words."""
    if character.isascii():
        return character.isalnum() or character == "_"
    is_letter = character.isalnum() or unicodedata.category(character) in ("Mn", "Mc")
    return is_letter and _UNSPACED.match(character) is None


def _without_blanks(text: str, start: int, stop: int) -> tuple[int, int]:
    """The borders of a token without white space around it, which some tokenizers count to the word behind it."""
    covered = text[start:stop]
    if covered and not covered.isspace() and (covered[0].isspace() or covered[-1].isspace()):
        return start + len(covered) - len(covered.lstrip()), start + len(covered.rstrip())
    return start, stop
