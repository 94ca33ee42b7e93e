"""From bytes to text: the encoding that the user names, else the byte order mark's, else UTF-8, else a guess.

Stands apart, because a guess must be said and can be wrong, while the other three are certain. Files of one source are
guessed together: one short text alone tells little. Must not import torch, pandas or datasets.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.serve.errors import DataError
from edgetune.tune.data.encoding_guess import guess_encoding, utf_16_without_mark

# UTF-32 first: its mark begins with that of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
SHOWN_WORDS = 3
TWO_BYTES = ("gb18030", "cp950", "cp932", "euc_jp", "cp949", "utf-16-le", "utf-16-be")
_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_BEYOND_ASCII = re.compile(r"[^\s,;|\"]*[^\x00-\x7f\s][^\s,;|\"]*")


@dataclass(frozen=True)
class Decoded:
    """A file's text without byte order mark; `guessed` is its encoding where nothing told it."""

    text: str
    guessed: str | None = None


def decode(content: bytes, encoding: str | None, name: str, *, likely: str | None = None) -> Decoded:
    """Turn bytes into text: by `encoding`, else by byte order mark, else UTF-8, else by a guess.

    Args:
        encoding: what the user says; None is detected.
        name: of the file, for messages.
        likely: what other files of the same source were read as, in place of a guess where it fits.

    Raises:
        DataError: the bytes are not of that encoding, or of none that could be found.
    """
    mark = next((mark for mark in BYTE_ORDER_MARKS if content.startswith(mark)), None)
    codec = encoding or (BYTE_ORDER_MARKS[mark] if mark else None)
    if codec is None and (wide := utf_16_without_mark(content)):
        return Decoded(content.decode(wide), guessed=wide)
    try:
        return Decoded(content.decode(codec or "utf-8").removeprefix("\ufeff"))
    except LookupError as error:
        raise DataError(
            f"The encoding {codec!r} is unknown.",
            expected="a name such as utf-8, gb18030 or cp1252.",
            action="mend or drop data.encoding.",
        ) from error
    except UnicodeDecodeError as error:
        if codec or _is_damaged_utf_8(content):
            line = content.count(b"\n", 0, error.start) + 1
            fault = f"{name}, line {line}: byte {error.start} is not {codec or 'utf-8'} ({error.reason})"
            raise _undecodable(f"{fault}{'.' if codec else ', which the rest is.'}") from error
    return _decode_by_guess(content, name, likely)


def decode_all(
    contents: Sequence[bytes], encoding: str | None, names: Sequence[str], *, likely: str | None = None
) -> list[Decoded]:
    """As `decode`, of the files of one source: where most are not UTF-8, one encoding is guessed for all of them.

    Raises:
        DataError: as `decode`.
    """
    beyond = [content for content in contents if not content.isascii()]
    others = [content for content in beyond if not _is_utf_8(content)]
    if likely is None and others and encoding is None:
        likely = guess_encoding(b"\n".join(others))
    decoded = []
    for content, name in zip(contents, names, strict=True):
        # Of a short text the bytes may be UTF-8 by chance.
        alike = likely and 2 * len(others) > len(beyond) and not content.isascii() and not _has_mark(content)
        decoded.append(
            _decode_by_guess(content, name, likely) if alike else decode(content, encoding, name, likely=likely)
        )
    return decoded


def _has_mark(content: bytes) -> bool:
    return content.startswith(tuple(BYTE_ORDER_MARKS))


def _is_utf_8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return _has_mark(content)
    return True


def _is_damaged_utf_8(content: bytes) -> bool:
    """Whether bytes are UTF-8 but for a few: no other encoding makes that many of its sequences by chance."""
    inside = sum(map(len, _SEQUENCE.findall(content)))
    beyond = len(content.translate(None, delete=bytes(range(0x80))))
    return inside >= 12 and inside * 10 > beyond * 9


def _decode_by_guess(content: bytes, name: str, likely: str | None) -> Decoded:
    if likely is not None:
        with contextlib.suppress(UnicodeDecodeError):
            return Decoded(content.decode(likely).removeprefix("\ufeff"), guessed=likely)
    if (guess := guess_encoding(content)) is not None:
        _refuse_mixture(content, guess, name)
        return Decoded(content.decode(guess).removeprefix("\ufeff"), guessed=guess)
    raise _undecodable(f"{name} is not UTF-8, and no other encoding fits its bytes.")


def _refuse_mixture(content: bytes, guess: str, name: str) -> None:
    """Refuse lines in UTF-8 among lines in another encoding, of which one reading would spoil either.

    Of encodings with two bytes a character nothing is said: their short lines may be UTF-8 by chance.

    Raises:
        DataError: naming a line of each kind.
    """
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if not line.isascii()]
    whole = [number for number, line in lines if _is_utf_8(line)]
    if guess in TWO_BYTES or len(whole) < 2 or len(whole) * 10 < len(lines):
        return
    other = next(number for number, line in lines if not _is_utf_8(line))
    raise _undecodable(
        f"{name} mixes encodings: of its {len(lines):,} lines beyond ASCII {len(whole):,} are UTF-8, such as line "
        f"{whole[0]}, and others are not, such as line {other}."
    )


def _undecodable(problem: str) -> DataError:
    return DataError(
        problem,
        expected="text in one encoding, best UTF-8.",
        action="name the encoding with --set data.encoding=..., or convert the file: iconv -f ENCODING -t utf-8 FILE.",
    )


def encoding_finding(decoded: Decoded, name: str) -> tuple[str, ...]:
    """One sentence where the encoding was guessed, with words that it makes; none otherwise."""
    if decoded.guessed is None:
        return ()
    words = shown_words([decoded.text])
    return (f"{name} is not UTF-8: it was read as {decoded.guessed}, a guess{words} (data.encoding).",)


def encoding_findings(decoded: Sequence[Decoded]) -> tuple[str, ...]:
    """As `encoding_finding`, of the files of a folder."""
    guessed = [file for file in decoded if file.guessed]
    if not guessed:
        return ()
    names = ", ".join(sorted({file.guessed or "" for file in guessed}))
    words = shown_words([file.text for file in guessed])
    return (
        f"{len(guessed):,} of {len(decoded):,} files are not UTF-8: they were read as {names}, a guess{words} "
        "(data.encoding).",
    )


def shown_words(texts: Sequence[str]) -> str:
    """Some words with letters beyond ASCII, which a wrong guess would have spoilt."""
    words: dict[str, None] = {}
    for text in texts:
        for word in _BEYOND_ASCII.finditer(text):
            words[word.group()[:30]] = None
            if len(words) == SHOWN_WORDS:
                break
        if len(words) == SHOWN_WORDS:
            break
    return " that makes " + ", ".join(map(repr, words)) if words else ""
