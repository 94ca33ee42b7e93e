"""Protocol-buffer text as Triton's config.pbtxt has it, written from plain values: the floor has no protobuf.

Source: the Text Format Language Specification of protobuf.dev. Imports nothing of ours.
"""

from __future__ import annotations

import json

Value = int | bool | str | list["Value"] | dict[str, "Value"]
Message = dict[str, Value]


class Word(str):
    """A bare word, as the name of an enumeration's value is written."""

    __slots__ = ()


def to_text(message: Message, depth: int = 0) -> str:
    """The message as text: repeated values as repeated fields, strings quoted, `Word`s bare."""
    lines = []
    for name, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                lines.append(f"{'  ' * depth}{name} {{\n{to_text(one, depth + 1)}{'  ' * depth}}}\n")
            else:
                lines.append(f"{'  ' * depth}{name}: {_scalar(one)}\n")
    return "".join(lines)


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Word) or not isinstance(value, str):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
