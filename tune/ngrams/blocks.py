"""Which n-grams are counted, by the script and the length of the texts: words, characters, or both.

Measured on banking77, sst2, waimai_10k and csl_category; the figures are in docs/log.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Code points of scripts whose words are not separated by blanks (Unicode 16, Blocks.txt): first and last of each range.
Ranges = tuple[tuple[int, int], ...]
IDEOGRAPHS: Ranges = ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF))
IDEOGRAPHS += ((0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9D), (0x20000, 0x3FFFF))
UNSPACED_ALPHABETS: Ranges = ((0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF))

# Shares of the letters: below the first all words are taken to stand between blanks, from the second on none.
FEW_UNSPACED, MOST_UNSPACED = 0.1, 0.8
# Above this mean length, in characters, words alone are counted: n-grams of characters would take five times as long,
# and on long reviews pairs of words reach what they do (Wang and Manning, Baselines and Bigrams, ACL 2012).
LONG_TEXT = 600


@dataclass(frozen=True)
class Block:
    """N-grams of one kind, as scikit-learn's `analyzer` and `ngram_range` have them.

    Attributes:
        analyzer: "word" for words of two letters or more, "char" for characters, "char_wb" for characters within words.
        shortest, longest: words or characters of an n-gram.
    """

    analyzer: Literal["word", "char", "char_wb"]
    shortest: int
    longest: int

    @property
    def described(self) -> str:
        """In words, such as "words 1-2"."""
        noun = {"word": "words", "char": "characters", "char_wb": "characters within words"}[self.analyzer]
        return f"{noun} {self.shortest}-{self.longest}"


WORDS, WITHIN_WORDS = Block("word", 1, 2), Block("char_wb", 2, 5)
SPACED = (WORDS, WITHIN_WORDS)


def choose_blocks(texts: Sequence[str]) -> tuple[Block, ...]:
    """The n-grams that suit the texts, which should be those of the training part."""
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    ideographs = _share(letters, IDEOGRAPHS)
    alphabets = _share(letters, UNSPACED_ALPHABETS)
    unspaced = ideographs + alphabets
    if unspaced < FEW_UNSPACED:
        mean = sum(map(len, texts)) / max(1, len(texts))
        return (WORDS,) if mean > LONG_TEXT else SPACED
    # A Chinese word has one or two characters, a Thai one as many letters as an English one.
    characters = Block("char", 1, 2) if ideographs >= alphabets else Block("char", 2, 5)
    return (characters,) if unspaced >= MOST_UNSPACED else (WORDS, characters)


def _share(letters: Sequence[str], ranges: Ranges) -> float:
    inside = sum(any(first <= ord(letter) <= last for first, last in ranges) for letter in letters)
    return inside / max(1, len(letters))
