"""What must not be kept of a text: e-mail addresses, telephone and card numbers, and what a user's own patterns name.

Each match becomes its name in brackets, [email]. Patterns find what is written as such; names of people and addresses
they do not find.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from edgetune.serve.errors import InputError

# A length and no nesting: a stranger's text must not make a pattern run for long.
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)")
_PHONE = re.compile(r"(?<![\w.])(?:\+|\(|00?)?\d(?:[ ()/.-]{0,2}\d){6,18}(?!\w)")
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}")


def _is_card(digits: str) -> bool:
    """Luhn's check digit, ISO/IEC 7812-1 annex B."""
    numbers = [int(digit) for digit in reversed(digits) if digit.isdigit()]
    doubled = [2 * number - 9 * (number > 4) for number in numbers[1::2]]
    return (sum(numbers[::2]) + sum(doubled)) % 10 == 0


def _is_phone(text: str) -> bool:
    """Not a date, and no number without any sign of a telephone's: a sum, an order number."""
    grouped = any(sign in text for sign in " -/()+.")
    return not _DATE.fullmatch(text) and (grouped or text.startswith("0"))


_ALWAYS: Callable[[str], bool] = bool
NAMED: Mapping[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (_EMAIL, _ALWAYS),
    "card": (_CARD, _is_card),
    "phone": (_PHONE, _is_phone),
}


def _replacement(name: str, holds: Callable[[str], bool], match: re.Match[str]) -> str:
    return name if holds(match[0]) else match[0]


# Members whose values are names of the model's, not what somebody wrote.
_NAMES = frozenset({"label", "role", "type"})


class Redaction:
    """Replaces what its patterns find."""

    def __init__(self, names: Iterable[str] = tuple(NAMED), patterns: Iterable[str] = ()) -> None:
        """Choose patterns by name, and add own ones, each NAME=REGEX.

        Raises:
            InputError: a name is not known, or a pattern is none.
        """
        self._patterns: list[tuple[str, re.Pattern[str], Callable[[str], bool]]] = []
        for name in NAMED:  # cards before telephones, whatever the order they were named in
            if name in set(names):
                self._patterns.append((name, *NAMED[name]))
        for name in names:
            if name not in NAMED:
                raise InputError(f"There is no pattern {name!r} to redact.", expected=", ".join(NAMED))
        self._patterns[:0] = [(*own_pattern(pattern), _ALWAYS) for pattern in patterns]

    def text(self, text: str) -> str:
        """The text with each match replaced by its pattern's name in brackets."""
        for name, pattern, holds in self._patterns:
            text = pattern.sub(partial(_replacement, f"[{name}]", holds), text)
        return text

    def value(self, value: Any) -> Any:
        """The same of every text in a value of JSON types; labels and roles stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (list, tuple)):
            return [self.value(each) for each in value]
        if isinstance(value, dict):
            return {key: each if key in _NAMES else self.value(each) for key, each in value.items()}
        return value


def own_pattern(written: str) -> tuple[str, re.Pattern[str]]:
    """A user's own pattern, NAME=REGEX.

    Raises:
        InputError: it is none, or matches where there is nothing.
    """
    name, sign, regex = written.partition("=")
    if not sign or not name.isidentifier() or not regex:
        raise InputError(f"{written!r} is no pattern to redact.", expected="NAME=REGEX, such as order=A[0-9]{6}")
    try:
        pattern = re.compile(regex)
    except (re.error, OverflowError) as error:
        raise InputError(f"The pattern {name!r} is no regular expression: {error}.", expected="Python's re") from error
    if pattern.match(""):
        raise InputError(f"The pattern {name!r} matches an empty text.", expected="a pattern of at least one character")
    return name, pattern
