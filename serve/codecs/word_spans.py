"""The words of an input by the tokens that they were encoded to. Must not import numpy, as the codecs must not."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from edgetune.serve.codecs import Input
    from edgetune.serve.codecs.text import EncodedText

# A run of letters and digits, with an apostrophe inside; one sign; and where no spaces divide words, one character.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['\u2019][^\W{_UNSPACED}]+)*|[^\w\s]")


class Span(NamedTuple):
    """Characters of one text of an input: `part` is its place among them, `end` is behind the last."""

    part: int
    start: int
    end: int


class Word(NamedTuple):
    """A word, or several where a token reaches into more than one, and the places of its tokens in the row."""

    span: Span
    tokens: frozenset[int]


@runtime_checkable
class SpanCodec(Protocol):
    """A codec whose tokens stand for characters of texts."""

    def encode_spans(self, value: Input) -> tuple[EncodedText, list[Span | None]]:
        """One input as one row, and the characters of each of its tokens in what `texts` gives; None of special ones.

        Raises:
            InputError: as `encode`.
        """


def words_of(texts: Sequence[str], spans: Sequence[Span | None]) -> list[Word]:
    """The words of an input's texts that tokens of its row stand for, in order.

    Args:
        texts: of the input.
        spans: of each token of the row; None of special ones.
    """
    borders = [[match.span() for match in _WORD.finditer(text)] for text in texts]
    ends = [[end for _, end in part] for part in borders]
    words: list[Word] = []
    for place, span in enumerate(spans):
        if span is None:
            continue
        first = bisect_right(ends[span.part], span.start)
        touched = list(_before(span.end, borders[span.part], first))
        if not touched:
            continue
        start, end = touched[0][0], touched[-1][1]
        last = words[-1] if words else None
        if last is not None and last.span.part == span.part and start < last.span.end:
            words[-1] = Word(Span(span.part, last.span.start, max(end, last.span.end)), last.tokens | {place})
        else:
            words.append(Word(Span(span.part, start, end), frozenset({place})))
    return words


def _before(end: int, borders: Sequence[tuple[int, int]], first: int) -> Iterator[tuple[int, int]]:
    """The borders from the place `first` on that begin before `end`."""
    while first < len(borders) and borders[first][0] < end:
        yield borders[first]
        first += 1
