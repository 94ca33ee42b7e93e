"""Words as they are mistyped on a QWERTY keyboard: a neighbouring key, two letters in turn, one left out."""

from __future__ import annotations

from edgetune.tune.augmentation.drawn import Drawn, Synonyms

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
FEWEST_LETTERS = 4  # a shorter word is another one after it


def _neighbours() -> dict[str, str]:
    """The keys beside each letter, on its own row and those above and below, which are shifted by half a key."""
    keys = {letter: (row, place + row / 2) for row, letters in enumerate(_ROWS) for place, letter in enumerate(letters)}
    return {
        letter: "".join(
            other
            for other, (other_row, other_place) in keys.items()
            if other != letter and abs(other_row - row) <= 1 and abs(other_place - place) <= 1
        )
        for letter, (row, place) in keys.items()
    }


NEIGHBOURS = _neighbours()


def mistype(row: Drawn, _: Synonyms) -> dict[int, str]:
    """Words with one mistyped letter each, of those with letters of that keyboard."""
    places = [place for place in range(len(row.words)) if _can_be_mistyped(row.word(place))]
    return {place: _mistyped(row, row.word(place)) for place in row.some(places)}


def _can_be_mistyped(word: str) -> bool:
    return len(word) >= FEWEST_LETTERS and all(letter in NEIGHBOURS for letter in word.lower())


def _mistyped(row: Drawn, word: str) -> str:
    at = int(row.draw.integers(1, len(word)))  # the first letter is seldom wrong
    how = row.draw.random()
    if how < 0.5:
        keys = NEIGHBOURS[word[at].lower()]
        key = keys[int(row.draw.integers(len(keys)))]
        return word[:at] + (key.upper() if word[at].isupper() else key) + word[at + 1 :]
    if how < 0.75 and word[at] != word[at - 1]:
        return word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]
    return word[:at] + word[at + 1 :]
