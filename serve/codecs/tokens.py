"""Texts for a head on each token: ids with the characters that every token covers, long texts in overlapping windows.

Windows are those of `transformers`' token-classification pipeline with `stride`: both leave them to the tokenizers
library. Must not import numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from tokenizers import Encoding

from edgetune.serve.codecs import Input
from edgetune.serve.codecs.text import EncodedText, TextCodec, run_tokenizer

# Tokens that two windows share, as a part of the longest input: what stands at a window's end is read again with as
# much behind it. A part of the bundle's format.
SHARED_PART = 4


class EncodedTokens(EncodedText, frozen=True):
    """One window of a text, the first with those behind it; nothing of a text is cut.

    Attributes:
        text: that it is a window of.
        places: of the tokens that stand for characters: all but special ones.
        borders: the first character of each of these and the one behind its last, in the whole text.
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
    def of(cls, text: str, encodings: Sequence[Encoding], pad_id: int) -> EncodedTokens:
        """A text by the encodings of its windows."""
        first, *others = (cls._window(text, encoding, pad_id) for encoding in encodings)
        return cls(first.ids, first.type_ids, False, text, first.places, first.borders, tuple(others))

    @classmethod
    def _window(cls, text: str, encoding: Encoding, pad_id: int) -> EncodedTokens:
        special, offsets = encoding.special_tokens_mask, encoding.offsets
        places = [place for place, is_special in enumerate(special) if not is_special]
        borders = [_without_blanks(text, *offsets[place]) for place in places]
        # Where the tokenizer adds no special tokens, a text without a token is read as one of padding.
        return cls(encoding.ids or [pad_id], encoding.type_ids or [0], False, text, places, borders)


class TokensCodec(TextCodec):
    """Single texts with the borders of their tokens; `samples` have a character a token."""

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
            EncodedTokens.of(text, [encoding, *encoding.overflowing], self._pad_id)
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


class TextAndTokensCodec(TokensCodec):
    """As `TokensCodec`, for tasks on whole texts beside those on tokens: they read the first window, and a text with
    further ones is truncated for them."""

    def encode(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """Windows of each text, in order; raises as `TokensCodec`."""
        rows = super().encode(inputs)
        return [msgspec.structs.replace(row, truncated=True) if len(windows(row)) > 1 else row for row in rows]


def windows(row: EncodedText) -> tuple[EncodedText, ...]:
    """The windows of a text, one where it was not encoded by tokens."""
    return row.windows if isinstance(row, EncodedTokens) else (row,)


def shared_tokens(max_tokens: int) -> int:
    """Tokens that two windows of a text share, special ones not counted."""
    return max_tokens // SHARED_PART


def _without_blanks(text: str, start: int, stop: int) -> tuple[int, int]:
    """The borders of a token without white space around it, which some tokenizers count to the word behind it."""
    covered = text[start:stop]
    if covered and not covered.isspace() and (covered[0].isspace() or covered[-1].isspace()):
        return start + len(covered) - len(covered.lstrip()), start + len(covered.rstrip())
    return start, stop
