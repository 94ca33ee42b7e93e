"""From bytes to text: the encoding that the user names, else the byte order mark's, else UTF-8, else a guess.

Stands apart, because a guess must be said and can be wrong, while the other three are certain.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from edgetune.serve.errors import DataError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass(frozen=True)
class Decoded:
    """A file's text without byte order mark; `guessed` is its encoding where nothing told it."""

    text: str
    guessed: str | None = None


def decode(content: bytes, encoding: str | None, name: str) -> Decoded:
    """Turn bytes into text: by `encoding`, else by byte order mark, else UTF-8, else by a guess.

    Raises:
        DataError: the bytes are not of that encoding, or of none that could be found.
    """
    mark = next((mark for mark in BYTE_ORDER_MARKS if content.startswith(mark)), None)
    codec = encoding or (BYTE_ORDER_MARKS[mark] if mark else None)
    try:
        return Decoded(content.decode(codec or "utf-8").removeprefix("\ufeff"))
    except LookupError as error:
        raise DataError(
            f"The encoding {codec!r} is unknown.",
            expected="a name such as utf-8, gb18030 or cp1252.",
            action="mend or drop data.encoding.",
        ) from error
    except UnicodeDecodeError as error:
        if codec:
            line = content.count(b"\n", 0, error.start) + 1
            raise _undecodable(f"{name}, line {line}: byte {error.start} is not {codec} ({error.reason}).") from error
    return _guess_encoding(content, name)


def _guess_encoding(content: bytes, name: str) -> Decoded:
    import charset_normalizer

    best = charset_normalizer.from_bytes(content).best()
    if best is None:
        raise _undecodable(f"{name} is not UTF-8, and no other encoding fits its bytes.")
    return Decoded(content.decode(best.encoding).removeprefix("\ufeff"), guessed=best.encoding)


def _undecodable(problem: str) -> DataError:
    return DataError(
        problem,
        expected="text in one encoding, best UTF-8.",
        action="name the encoding with --set data.encoding=..., or convert the file: iconv -f ENCODING -t utf-8 FILE.",
    )


def encoding_finding(decoded: Decoded, name: str) -> tuple[str, ...]:
    """One sentence where the encoding was guessed, none otherwise."""
    if decoded.guessed is None:
        return ()
    return (f"{name} is not UTF-8: it was read as {decoded.guessed}, which is a guess.",)
