"""Words in place of which a synonym stands. A lexicon knows all senses of a word (card: menu, identity card) and not
which is meant: that the copies help is for held-out rows to say.
"""

from __future__ import annotations

from edgetune.tune.augmentation.drawn import Drawn, Synonyms


def replace_words(row: Drawn, synonyms: Synonyms) -> dict[int, str]:
    """Some of the words that the lexicon knows, each as one of its synonyms."""
    known = [place for place in range(len(row.words)) if row.word(place).lower() in synonyms]
    return {place: _synonym(row, row.word(place), synonyms) for place in row.some(known)}


def _synonym(row: Drawn, word: str, synonyms: Synonyms) -> str:
    """A drawn synonym, with a capital where the word has one."""
    others = synonyms[word.lower()]
    other = others[int(row.draw.integers(len(others)))]
    return other[:1].upper() + other[1:] if word[:1].isupper() else other
