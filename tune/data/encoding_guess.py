"""A guess at the encoding of bytes that are neither marked nor UTF-8: every likely encoding decodes them, and the
characters that come out are held against the letters that languages write and the places where they stand.

Own arithmetic, because charset-normalizer read 21 of 48 Windows-1252 files as cp1250 or Mac, and short texts in
GB 18030 as Big5. The evidence, letters of one language and implausible neighbours, is that of chardetng (Sivonen 2020,
https://hsivonen.fi/chardetng/), without its tables of pairs.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from edgetune.tune.data.alphabets import ALPHABETS, CHARACTERS, ENCODINGS, MARKS, RARE, Alphabet

SAMPLE_BYTES, LINE_BYTES = 30_000, 3_000
# A common letter in its place has one point; an encoding that fits has more than none on average.
FOREIGN = -1.0  # points of a letter that the language does not write
# Points by which each character that differs must fit better: than in cp1252, and if the encoding is a rare one.
PREFERENCE, RARITY = 0.15, 0.15
_WORD_MARKS = frozenset("’·…′\u00ad")  # stand inside words
_DASHES = frozenset("–—")
_WORDS = frozenset("àèéêòóáíôåöæø")  # letters that are words of some Latin script language
_THAI_VOWELS = frozenset("เแโใไะาำ")  # carry no mark
_BEFORE_WORDS = frozenset("¿¡¹¼½¾±×¥€£§")  # do not follow a letter at once
_AFTER_WORDS = frozenset("²³¹¼½¾ªº°")  # do not stand before one


@dataclass(frozen=True)
class _Reading:
    """A sample as one encoding decodes it, and its points in all."""

    name: str
    text: str
    points: float


@dataclass
class _Line:
    """The characters beyond ASCII of one line: letters to be held against languages, and points that are settled."""

    letters: Counter[str] = field(default_factory=Counter)
    points: float = 0.0


def guess_encoding(content: bytes) -> str | None:
    """The encoding that fits `content` best, "utf-16-le" and "utf-16-be" included; None where none fits."""
    if wide := utf_16_without_mark(content):
        return wide
    sample = _sample(content)
    readings = [reading for name in ENCODINGS if (reading := _read(sample, name)) is not None]
    while readings:
        best = _best(readings)
        if best.points <= 0:
            return None
        if (text := _decoded(content, best.name)) is not None:
            # Both are alike but for eight signs, of which ¤ was given up for €.
            other = best.name == "cp1252" and "¤" in text and not _has_controls(content)
            return "iso8859_15" if other else best.name
        readings.remove(best)
    return None


def _best(readings: list[_Reading]) -> _Reading:
    """The reading with the most points, of which one that is not preferred needs more where it differs."""
    best = readings[0]
    for reading in readings[1:]:
        rarer = reading.name in RARE and best.name not in RARE
        margin = PREFERENCE * (best.name == "cp1252") + RARITY * rarer
        differing = _differing(best.text, reading.text)
        if differing and reading.points - best.points > margin * differing:
            best = reading
    return best


def _differing(one: str, other: str) -> int:
    """The number of characters that are not the same."""
    if len(one) != len(other):
        return max(sum(character >= "\x80" for character in text) for text in (one, other))
    return sum(a != b for a, b in zip(one, other, strict=True))


def utf_16_without_mark(content: bytes) -> str:
    """Which UTF-16, if any: the zero bytes of spaces, digits and line ends stand at even or at odd places alone."""
    if 0 not in content:
        return ""
    zeros = content[0::2].count(0), content[1::2].count(0)
    if max(zeros) < 2 or min(zeros) * 20 > max(zeros):
        return ""
    name = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    text = _decoded(content, name)
    odd = sum(not (character.isprintable() or character.isspace()) for character in text or "")
    return name if text and odd * 20 <= len(text) else ""


def _decoded(content: bytes, name: str) -> str | None:
    try:
        return content.decode(name)
    except UnicodeDecodeError:
        return None


def _has_controls(content: bytes) -> bool:
    return any(0x80 <= byte < 0xA0 for byte in set(content))


def _sample(content: bytes) -> bytes:
    """Different lines with bytes beyond ASCII, spread evenly over all of them."""
    lines = [line for line in dict.fromkeys(content.splitlines()) if not line.isascii()]
    step = max(1, -(-sum(map(len, lines)) // SAMPLE_BYTES))
    return b"\n".join(_beginning(line) for line in lines[::step])


def _beginning(line: bytes) -> bytes:
    """Some of a long line, cut at a space: no encoding has one inside a character."""
    end = line.find(b" ", LINE_BYTES)
    return line if end < 0 else line[:end]


def _read(sample: bytes, name: str) -> _Reading | None:
    """The sample in an encoding, with its points; None where it cannot be decoded."""
    text = _decoded(sample, name)
    if not text:
        return None
    frequent = next((characters.frequent for characters in CHARACTERS if name in characters.encodings), None)
    if frequent is not None:
        return _Reading(name, text, _points_of_characters(text, name, frequent))
    return _Reading(name, text, _points_of_letters(text, [letters for letters, names in ALPHABETS if name in names]))


def _points_of_letters(text: str, alphabets: list[Alphabet]) -> float:
    """Half by the one language that suits all lines best, half by the best of each line: a table may hold several."""
    lines = [_letters_of(line) for line in text.split("\n")]
    by_line = [[_in_alphabet(line.letters, alphabet) for alphabet in alphabets] for line in lines]
    whole = max(map(sum, zip(*by_line, strict=True)))
    return sum(line.points for line in lines) + 0.5 * whole + 0.5 * sum(map(max, by_line))


def _in_alphabet(letters: Counter[str], alphabet: Alphabet) -> float:
    return sum(count * alphabet.get(letter, FOREIGN) for letter, count in letters.items())


def _letters_of(text: str) -> _Line:
    line = _Line()
    padded = f" {text} "
    for place, character in enumerate(padded):
        if character < "\x80":
            continue
        before, after = padded[place - 1], padded[place + 1]
        if character.isalpha() or _is_mark(character):
            line.letters[character.lower() if len(character.lower()) == 1 else character] += 1
            line.points += _letter_in_place(character, before, after) + _in_long_run(padded, place)
        else:
            line.points += _mark_in_place(character, before, after)
    return line


def _letter_in_place(letter: str, before: str, after: str) -> float:
    """Points off for a letter at a digit, a capital inside a word, a word of two scripts, a mark on nothing."""
    points = -0.7 * (before.isdigit() or after.isdigit())
    if letter >= "\u0370" and (_is_ascii_letter(before) or _is_ascii_letter(after)):
        points -= 1.0
    if _is_mark(letter):
        carried = _is_mark(before) or (before.isalpha() and before not in _THAI_VOWELS)
        return points - (not carried)
    alone = not _in_word(before) and not _in_word(after)
    if alone and (_is_latin(letter) or letter in _THAI_VOWELS) and letter.lower() not in _WORDS:
        points -= 0.5 if letter.isupper() else 0.3
    if letter.islower():
        return points - (after.isupper() or (letter == "þ" and not after.isalpha()))
    if letter.isupper():
        points += -1.5 if before.islower() else 0.4 if _opens_word(letter, before, after) else -0.15
    return points


def _in_long_run(text: str, place: int) -> float:
    """Points off for a Latin letter with an accent among three more: that is a word of another script."""
    if not _is_latin(text[place]):
        return 0.0
    run = text[max(0, place - 3) : place + 1]
    return -0.5 * (len(run) == 4 and all(letter >= "\x80" and _is_latin(letter) for letter in run))


def _mark_in_place(mark: str, before: str, after: str) -> float:
    if "\x80" <= mark < "\xa0" or unicodedata.category(mark) in ("Co", "Cn"):
        return -3.0
    if mark not in MARKS:
        return -1.0
    inside = before.isalpha() + after.isalpha()
    if mark in _DASHES:
        return (1.0, 0.4, 0.0)[inside]
    if before.isdigit() or after.isdigit():
        return 1.0
    if mark in _WORD_MARKS:
        return 1.0 if before.isalpha() else 0.5
    if inside == 2:
        return -1.5
    misplaced = (before.isalpha() and mark in _BEFORE_WORDS) or (after.isalpha() and mark in _AFTER_WORDS)
    return -1.0 if misplaced else 0.9


def _opens_word(letter: str, before: str, after: str) -> bool:
    """Whether a capital of a script with none in ASCII opens a word, which says more than how common it is."""
    return letter >= "\u0370" and after.islower() and not before.isalpha()


def _in_word(character: str) -> bool:
    return character.isalpha() or character in "'’-"


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) == "Mn"


def _is_latin(letter: str) -> bool:
    return letter < "\u0250" or "\u1e00" <= letter < "\u1f00"


def _is_ascii_letter(character: str) -> bool:
    return character < "\x80" and character.isalpha()


def _points_of_characters(text: str, name: str, frequent: frozenset[str]) -> float:
    padded, points = f" {text} ", 0.0
    for place, character in enumerate(padded):
        if character >= "\x80":
            alone = _is_ascii_letter(padded[place - 1]) and _is_ascii_letter(padded[place + 1])
            points += 2 * (_character_points(character, name, frequent) - 1.5 * alone)  # of two bytes, mostly
    return points


def _character_points(character: str, name: str, frequent: frozenset[str]) -> float:
    japanese, korean = name in ("cp932", "euc_jp"), name == "cp949"
    if character in frequent:
        return 1.0
    if "\u3040" <= character < "\u3100":
        return 1.0 if japanese else -0.5
    if "\uac00" <= character < "\ud7a4":
        return 0.4 if korean and _encoded(character, "euc_kr") else -0.5
    if "\u4e00" <= character < "\ua000":
        return -0.5 if korean else 0.4 if _FIRST_LEVEL[name](_encoded(character, _PLAIN[name])) else -0.4
    if character in MARKS or "\u3000" <= character < "\u3040" or "\uff00" <= character < "\uff61":
        return 0.5
    return -3.0 if unicodedata.category(character) in ("Co", "Cn", "Cc") else -0.7


# The standards without their extensions, and the rows in which each has its common characters.
_PLAIN = {"gb18030": "gb2312", "cp950": "big5", "cp932": "shift_jis", "euc_jp": "euc_jp"}
_FIRST_LEVEL: dict[str, Callable[[bytes], bool]] = {
    "gb18030": lambda code: b"\xb0" <= code < b"\xd8",
    "cp950": lambda code: b"\xa4" <= code < b"\xc7",
    "cp932": lambda code: b"\x88" <= code < b"\x98\x73",
    "euc_jp": lambda code: b"\xb0" <= code < b"\xd0",
}


def _encoded(character: str, name: str) -> bytes:
    return character.encode(name, "ignore")
