"""The keys that a server asks for: read from a file, held as SHA-256 alone, compared in constant time.

A key may expire on a day. Stands apart from the web server, so that who checks keys needs to know nothing of HTTP.
Must import the standard library and our errors alone.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from edgetune.serve.errors import WorkError

_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class Key:
    """One key at rest: the SHA-256 of its UTF-8 bytes, and the last day (UTC) that it holds; None for ever."""

    digest: bytes
    last_day: date | None


class Keys:
    """The keys of one file, which can be read again while requests are being checked."""

    def __init__(self, path: Path, keys: tuple[Key, ...]) -> None:
        self._path = path
        self._keys = keys

    @classmethod
    def open(cls, path: str | Path) -> Keys:
        """Read a file of keys: one a line, plain or as `sha256:HEX`, with `expires=2026-12-31` behind it where wished.

        Blank lines and what follows a `#` at the beginning of a word are left out.

        Raises:
            WorkError: the file cannot be read, holds no key, or has lines that are none; all of them are listed.
        """
        path = Path(path)
        return cls(path, _read(path))

    def accepts(self, presented: str) -> bool:
        """Whether `presented` is one of the keys and has not expired. The time taken tells nothing of the keys."""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
        today = utc_today()
        accepted = False
        for key in self._keys:
            holds = key.last_day is None or today <= key.last_day
            # No early end: how many keys were looked at must not show.
            accepted |= hmac.compare_digest(digest, key.digest) and holds
        return accepted

    def reload(self) -> None:
        """Read the file again; where that fails the keys stay as they were.

        Raises:
            WorkError: as `open` does.
        """
        self._keys = _read(self._path)

    def __len__(self) -> int:
        return len(self._keys)


def utc_today() -> date:
    """The day it is now, by UTC."""
    return datetime.now(UTC).date()


def _read(path: Path) -> tuple[Key, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise WorkError(
            f"The key file {path} cannot be read: {reason}.",
            expected="a text file with one key a line",
            action="check the path and its permissions",
        ) from error
    keys, faults = [], []
    for number, line in enumerate(lines, start=1):
        words = _words(line)
        if not words:
            continue
        try:
            keys.append(_key(words))
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    if faults or not keys:
        raise WorkError(
            f"The key file {path} " + ("is refused: " + "; ".join(faults) if faults else "holds no key") + ".",
            expected="one key a line, plain or as sha256:HEX, and `expires=2026-12-31` behind it where it ends",
            action="write one: openssl rand -hex 32 > " + str(path),
        )
    return tuple(keys)


def _words(line: str) -> list[str]:
    """The words of a line before its comment. A `#` within a word belongs to the key."""
    words: list[str] = []
    for word in line.split():
        if word.startswith("#"):
            break
        words.append(word)
    return words


def _key(words: list[str]) -> Key:
    """A key of the words of its line. Faults never repeat the key itself: they end in logs."""
    secret, *rest = words
    hashed = _HASHED.fullmatch(secret)
    if secret.startswith("sha256:") and not hashed:
        raise ValueError("sha256: is not followed by 64 hexadecimal digits")
    if not secret.isascii():
        raise ValueError("the key has characters that no HTTP header can carry")
    digest = bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(secret.encode("ascii")).digest()
    return Key(digest, _last_day(rest))


def _last_day(words: list[str]) -> date | None:
    if not words:
        return None
    name, _, day = words[0].partition("=")
    if len(words) > 1 or name != "expires":
        raise ValueError("more stands behind the key than expires=YYYY-MM-DD")
    try:
        return date.fromisoformat(day)
    except ValueError:
        raise ValueError(f"{day!r} is no day of the form YYYY-MM-DD") from None
