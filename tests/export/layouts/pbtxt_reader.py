"""Reads protocol-buffer text against a schema, strictly: a lenient reader would let through what Triton refuses.

Source: the Text Format Language Specification of protobuf.dev, less what no configuration needs (extensions, Any,
floats, `<>` for braces, octal and hexadecimal numbers).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgetune.export.layouts.pbtxt import Message, Value

_TOKEN = re.compile(
    r"""(?:\s|\#[^\n]*)*(?P<token>[A-Za-z_][A-Za-z0-9_]*|-?\d+|"(?:[^"\\\n]|\\.)*"|[\[\]{}:,;]|\S)?""", re.VERBOSE
)
_RANGES = {
    "int32": range(-(2**31), 2**31),
    "int64": range(-(2**63), 2**63),
    "uint32": range(2**32),
    "uint64": range(2**64),
}


class TextFormatError(ValueError):
    """The text is no message of the schema: says where and why."""


@dataclass(frozen=True)
class Field:
    """One field of a message: a scalar type, an enumeration (its names) or a message (its name in the schema)."""

    kind: str
    repeated: bool = False
    names: tuple[str, ...] = ()


# Message name: field name: Field. A map field is a repeated message of `key` and `value`, as in the format itself.
Schema = Mapping[str, Mapping[str, Field]]


def from_text(text: str, schema: Schema, message: str) -> Message:
    """Read one message.

    Returns:
        Its fields; a repeated field is a list, a message a dict, an enumeration's value its name.

    Raises:
        TextFormatError: a field that the message has not, a value of another type, a singular field twice, or text that
            does not follow the grammar.
    """
    return _Reader(text, schema).fields(message, end="")


class _Reader:
    def __init__(self, text: str, schema: Schema) -> None:
        self._text, self._schema, self._place = text, schema, 0
        self._token = ""
        self._step()

    def _step(self) -> str:
        """Take the current token and read the next; at the end of the text it is empty."""
        taken = self._token
        match = _TOKEN.match(self._text, self._place)
        assert match is not None  # every part of the pattern may be empty
        self._token, self._place = match["token"] or "", match.end()
        return taken

    def _expect(self, *tokens: str) -> str:
        if self._token not in tokens:
            raise self._error(f"found {self._token or 'the end'!r} instead of {' or '.join(map(repr, tokens))}")
        return self._step()

    def _error(self, what: str) -> TextFormatError:
        return TextFormatError(f"line {self._text.count(chr(10), 0, self._place) + 1}: {what}")

    def fields(self, message: str, end: str) -> Message:
        """The fields up to `end`: a closing brace, or the end of the text where it is empty."""
        known = self._schema[message]
        found: Message = {}
        while self._token != end:
            name = self._step()
            if name not in known:
                raise self._error(f"{message} has no field {name!r}")
            field = known[name]
            values = self._values(name, field)
            if field.repeated:
                earlier = found.get(name)
                found[name] = [*earlier, *values] if isinstance(earlier, list) else values
            elif name in found or len(values) != 1:
                raise self._error(f"{name} is given {len(values) + (name in found)} times and may be given once")
            else:
                found[name] = values[0]
            if self._token in (",", ";"):
                self._step()
        self._step()
        return found

    def _values(self, name: str, field: Field) -> list[Value]:
        """The values after a field's name: one, or a list in brackets. Only messages may leave the colon out."""
        if field.kind not in self._schema or self._token == ":":
            self._expect(":")
        if self._token != "[":
            return [self._value(name, field)]
        self._step()
        values: list[Value] = []
        while self._token != "]":
            if values:
                self._expect(",")
            values.append(self._value(name, field))
        self._step()
        return values

    def _value(self, name: str, field: Field) -> Value:
        if field.kind in self._schema:
            self._expect("{")
            return self.fields(field.kind, end="}")
        token = self._step()
        if field.kind == "string" and token.startswith('"'):
            try:
                text: str = json.loads(token)
            except ValueError:
                raise self._error(f"{name} holds an escape that is not read here: {token}") from None
            return text
        if field.kind == "bool" and token in ("true", "false"):
            return token == "true"
        if field.kind == "enum" and token in field.names:
            return token
        if field.kind in _RANGES and re.fullmatch(r"-?\d+", token) and int(token) in _RANGES[field.kind]:
            return int(token)
        raise self._error(f"{name} is {token or 'missing'}, which is no {field.kind}")
