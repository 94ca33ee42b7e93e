"""Tool calls in what a model writes, whole or while it comes: JSON objects with a name and arguments.

Read are the ways in which chat templates write them: between `<tool_call>` tags (Hermes, Qwen), behind `[TOOL_CALLS]`
(Mistral) or `<|python_tag|>` (Llama), or bare, one a line or in a list (Llama, and edgetune's own templates). What
names none of the tools that were offered is text. Must import the standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

_TAGS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>")
_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_BETWEEN = " \t\r\n,;"
_OPENS = ("{", "[")


@dataclass(frozen=True)
class MadeCall:
    """A call that a model makes; `arguments` is a JSON object as text."""

    name: str
    arguments: str


def split_calls(text: str, tools: Collection[str]) -> tuple[str, tuple[MadeCall, ...]]:
    """The words before the calls, and the calls; all of the text and none where it makes no call of these tools."""
    tag = next((tag for tag in _TAGS if tag in text), None)
    if tag == "<tool_call>":
        words, bodies = text[: text.index(tag)], _TAGGED.findall(text)
    elif tag is not None:
        words, _, body = text.partition(tag)
        bodies = [body]
    else:
        words, bodies = _bare(text)
    calls = [_calls(body, tools) for body in bodies]
    if not calls or not all(calls):
        return text, ()
    return words.rstrip(), tuple(call for some in calls for call in some or ())


def _bare(text: str) -> tuple[str, list[str]]:
    """Calls that stand at the beginning of a line, behind which nothing else comes."""
    start = _bare_start(text)
    return (text, []) if start is None else (text[:start], [text[start:]])


def _bare_start(text: str) -> int | None:
    """Where the first line begins that opens a JSON value."""
    place = 0
    for line in text.splitlines(keepends=True):
        stripped = line.lstrip()
        if stripped.startswith(_OPENS):
            return place + len(line) - len(stripped)
        place += len(line)
    return None


def _calls(body: str, tools: Collection[str]) -> list[MadeCall] | None:
    """All that a text of JSON values calls; None where it is something else."""
    decoder, calls, place = json.JSONDecoder(), list[MadeCall](), 0
    body = body.rstrip(_BETWEEN)
    while place < len(body):
        if body[place] in _BETWEEN:
            place += 1
            continue
        try:
            value, place = decoder.raw_decode(body, place)
        except (ValueError, RecursionError):
            return None
        for one in value if isinstance(value, list) else [value]:
            call = _call(one, tools)
            if call is None:
                return None
            calls.append(call)
    return calls or None


def _call(value: object, tools: Collection[str]) -> MadeCall | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function", value)
    if not isinstance(inner, dict) or inner.get("name") not in tools:
        return None
    arguments = inner.get("arguments", inner.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not isinstance(arguments, dict):
        return None
    return MadeCall(str(inner["name"]), json.dumps(arguments, ensure_ascii=False))


class CallStream:
    """The words of an answer as they come, held back from where calls may begin."""

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self._shown = ""
        self._held = ""

    def push(self, text: str) -> str:
        """The text that can be shown: it is no part of a call."""
        self._held += text
        whole = self._shown + self._held
        ready = max(0, _safe(whole) - len(self._shown))
        piece, self._held = self._held[:ready], self._held[ready:]
        self._shown += piece
        return piece

    def finish(self) -> tuple[str, tuple[MadeCall, ...]]:
        """At the end: what is left to show, and the calls."""
        _, calls = split_calls(self._shown + self._held, self._tools)
        held, self._held = self._held, ""
        return ("" if calls else held), calls


def _safe(text: str) -> int:
    """How many characters of a text that grows cannot belong to calls: white space before calls does."""
    starts = [place for place in (_bare_start(text), *(text.find(tag) for tag in _TAGS)) if place not in (None, -1)]
    end = min([len(text), *(place for place in starts if place is not None)])
    beginning = max(size for tag in _TAGS for size in range(len(tag)) if text[:end].endswith(tag[:size]))
    return len(text[: end - beginning].rstrip())
