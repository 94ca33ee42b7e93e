"""A text that is to be changed: its words, how many of them change, and the draws, which depend on the row alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Scripts that put no blanks between words: there a character stands for a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+(?:['’](?:(?![{_UNSPACED}])\w)+)*")
SHARE = 0.1  # of the words that change, EDA's alpha; one at least

Synonyms = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Drawn:
    """One text that is to be changed.

    Attributes:
        text: as it is.
        words: first character of each word, and the one behind its last.
        most: how many of them change at most.
        draw: what is drawn with.
    """

    text: str
    words: tuple[tuple[int, int], ...]
    most: int
    draw: np.random.Generator

    @classmethod
    def of(cls, text: str, *key: int | str) -> Drawn:
        """A text with its draws by itself and `key`."""
        words = tuple(match.span() for match in _WORDS.finditer(text))
        seed = hashlib.sha256(json.dumps([text, *key]).encode("ascii")).digest()
        draw = np.random.default_rng(int.from_bytes(seed[:16], "big"))
        return cls(text, words, max(1, round(SHARE * len(words))), draw)

    def word(self, place: int) -> str:
        """The word at a place."""
        start, end = self.words[place]
        return self.text[start:end]

    def some(self, places: Sequence[int]) -> list[int]:
        """At most so many of these places as may change, drawn."""
        count = min(self.most, len(places))
        return sorted(self.draw.choice(np.asarray(places), count, replace=False).tolist()) if count else []

    def changed(self, changes: Mapping[int, str]) -> str:
        """The text with other words at some places; "" for none, with the blank behind it."""
        pieces, end = [], 0
        for place in sorted(changes):
            start, stop = self.words[place]
            pieces += [self.text[end:start], changes[place]]
            end = stop + (not changes[place] and self.text[stop : stop + 1] == " ")
        return "".join([*pieces, self.text[end:]]).strip()
