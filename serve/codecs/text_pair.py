"""Pairs of texts in one row: the special tokens and type ids that the tokenizer puts around a pair.

The two texts are encoded apart and joined here. The library's own encoding of a pair keeps every combination of what it
cut off: two texts of 8,000 words took 2.9 s by it, and each alone takes 12 ms. The result is the same, row by row.
Must not import numpy, as `text` must not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import Tokenizer

from edgetune.serve.bundle import TOKENIZER_NAME
from edgetune.serve.codecs import CODECS, Input, is_frame
from edgetune.serve.codecs.text import SAMPLE, EncodedText, TextCodec, run_tokenizer
from edgetune.serve.codecs.word_spans import Span
from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.tokenizing import TokenizerCall

T = TypeVar("T")

EXPECTED = 'a pair of strings: ("...", "...") or {"text": "...", "text_pair": "..."}'

# What the columns of two texts are usually called.
PAIR_NAMES = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2")),
    *(("text_a", "text_b"), ("text", "text_pair"), ("query", "passage"), ("query", "document"), ("query", "text")),
    *(("question", "sentence"), ("sentence_a", "sentence_b"), ("anchor", "candidate"), ("s1", "s2")),
)

# Texts of which every tokenizer makes at least one token, or the next is tried.
_PROBES = ("a", "0", "the", "A", ".", "\u00e9", "\u4e00")


def usual_pair(names: Sequence[str]) -> tuple[str, str] | None:
    """The two columns with usual names of a pair, in its order; None where there are none."""
    known = {name.casefold(): name for name in names}
    return next(((known[a], known[b]) for a, b in PAIR_NAMES if a in known and b in known), None)


@dataclass(frozen=True)
class PairTemplate:
    """What a tokenizer puts before, between and behind two texts: ids and type ids; and the type id of each text."""

    before: tuple[list[int], list[int]]
    between: tuple[list[int], list[int]]
    behind: tuple[list[int], list[int]]
    types: tuple[int, int]

    @property
    def specials(self) -> int:
        """Tokens that every row has beside those of its texts."""
        return len(self.before[0]) + len(self.between[0]) + len(self.behind[0])

    def joined(self, first: list[int], second: list[int], *, truncated: bool) -> EncodedText:
        """The row of two texts' ids."""
        return EncodedText(
            [*self.before[0], *first, *self.between[0], *second, *self.behind[0]],
            [
                *self.before[1],
                *[self.types[0]] * len(first),
                *self.between[1],
                *[self.types[1]] * len(second),
                *self.behind[1],
            ],
            truncated,
        )


class TextPairCodec(TextCodec):
    """Pairs of texts, truncated at `max_tokens` by shortening the longer text first, as transformers does it."""

    parts = CODECS["text-pair"].parts

    def __init__(self, folder: Path, max_tokens: int) -> None:
        super().__init__(folder, max_tokens)
        self._tokenizer.no_truncation()
        self._template = pair_template(self._tokenizer, folder / TOKENIZER_NAME)

    def texts(self, inputs: Sequence[Input]) -> Sequence[str]:
        """Both texts of each pair, one pair behind the other.

        Raises:
            InputError: an input is no pair of strings.
        """
        return [text for index, value in enumerate(inputs) for text in _pair(index, value)]

    def encode(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """Each pair as one row, in order.

        Raises:
            InputError: an input is no pair of strings, or a text is no valid Unicode.
        """
        encodings = run_tokenizer(self._tokenizer, self.texts(inputs), special_tokens=False)
        ids = iter([encoding.ids for encoding in encodings])
        return [self._row(first, second) for first, second in zip(ids, ids, strict=True)]

    def encode_spans(self, value: Input) -> tuple[EncodedText, list[Span | None]]:
        """One pair as `encode` gives it, and the characters of each of its tokens; None of special ones."""
        first, second = run_tokenizer(self._tokenizer, self.texts([value]), special_tokens=False)
        row = self._row(first.ids, second.ids)
        room = self._max_tokens - self._template.specials
        lengths = longest_first(len(first.ids), len(second.ids), room)
        of_texts = [
            self._cut([Span(part, *offsets) for offsets in encoding.offsets], length)
            for part, (encoding, length) in enumerate(zip((first, second), lengths, strict=True))
        ]
        template = self._template
        before, between, behind = ([None] * len(ids) for ids, _ in (template.before, template.between, template.behind))
        return row, [*before, *of_texts[0], *between, *of_texts[1], *behind] or [None]

    def encode_beginnings(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """As `encode`: what remains of a text hangs on the length of the other, so both are read whole."""
        return self.encode(inputs)

    def _row(self, first: list[int], second: list[int]) -> EncodedText:
        room = self._max_tokens - self._template.specials
        lengths = longest_first(len(first), len(second), room)
        if not first and not second and not self._template.specials:
            return EncodedText([self._pad_id], [0], False)  # as a single text
        if lengths == (len(first), len(second)):
            return self._template.joined(first, second, truncated=False)
        return self._template.joined(self._cut(first, lengths[0]), self._cut(second, lengths[1]), truncated=True)

    def _cut(self, tokens: list[T], length: int) -> list[T]:
        return tokens[:length] if self._side == "right" else tokens[len(tokens) - length :]

    def _sample(self) -> Input:
        return (SAMPLE, SAMPLE)


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each of two texts remain where both may have `room` together.

    Source: `truncate_encodings` of the tokenizers library, strategy "longest_first".
    """
    if first + second <= room:
        return first, second
    short, long = min(first, second), max(first, second)
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return (long, short) if first > second else (short, long)


def pair_template(tokenizer: Tokenizer, path: Path) -> PairTemplate:
    """What a tokenizer without truncation puts around the texts of a pair, read from a pair that it encodes.

    Raises:
        BundleDamaged: it joins a pair in another way than texts in order with special tokens around them.
    """
    for probe in _PROBES:
        with TokenizerCall():
            pair, alone = tokenizer.encode(probe, probe), tokenizer.encode(probe, add_special_tokens=False).ids
        if not alone:
            continue
        order, length = pair.sequence_ids, len(alone)
        if 0 not in order or 1 not in order:
            break
        first, second = order.index(0), order.index(1)
        template = PairTemplate(
            before=(pair.ids[:first], pair.type_ids[:first]),
            between=(pair.ids[first + length : second], pair.type_ids[first + length : second]),
            behind=(pair.ids[second + length :], pair.type_ids[second + length :]),
            types=(pair.type_ids[first], pair.type_ids[second]),
        )
        row = template.joined(alone, alone, truncated=False)
        if (row.ids, row.type_ids) != (pair.ids, pair.type_ids):
            break
        return template
    raise BundleDamaged(
        f"{path} joins a pair of texts in a way that is not known here.",
        expected="special tokens before, between and behind the two texts",
        action="tune a base whose tokenizer has a template for pairs",
    )


def _pair(index: int, value: Any) -> tuple[str, str]:
    """The two texts of an input.

    Raises:
        InputError: it is something else.
    """
    if isinstance(value, str):
        raise InputError(f"Input {index} is a single text.", expected=EXPECTED)
    if isinstance(value, (set, frozenset)) or is_frame(value):
        raise InputError(f"Input {index} is a {type(value).__name__}.", expected=EXPECTED)
    try:
        exact = isinstance(value, Mapping) and len(value) == len(TextPairCodec.parts)
        texts: Any = [value[name] for name in TextPairCodec.parts] if exact else value
        first, second = texts
    except (KeyError, TypeError, ValueError):
        raise InputError(f"Input {index} is no pair of texts: {value!r:.60}.", expected=EXPECTED) from None
    if not (isinstance(first, str) and isinstance(second, str)):
        kinds = f"{type(first).__name__} and {type(second).__name__}"
        raise InputError(f"Input {index} is a pair of {kinds}.", expected=EXPECTED)
    return first, second
