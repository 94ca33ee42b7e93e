"""Messages as a client sends them become those that chat templates take: the same as in training.

Training knows of a turn its role, content, reasoning, tool calls and names, and nothing else; what a client adds would
be read by a template that prints whole messages. Must not import Jinja: the messages are checked before it is needed.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from edgetune.serve.errors import InputError
from edgetune.serve.json_types import JsonObject

# A message as OpenAI's clients send it: "role" and "content", and what else the template reads ("tool_calls", "name").
Message: TypeAlias = Mapping[str, Any]

# What servers and data sets call the thoughts before an answer; templates read one of them.
REASONING = ("reasoning_content", "reasoning", "thinking")
_NAMES = ("tool_call_id", "name")


@functools.lru_cache(maxsize=16)
def reasoning_word(template: str) -> str | None:
    """The member that a template's Jinja text reads the thoughts from; None where it reads none.

    Between quotes or behind a dot: a template may well write words of the same letters.
    """
    return next((word for word in REASONING if re.search(rf"""\.{word}\b|['"]{word}['"]""", template)), None)


def template_messages(messages: Sequence[Message], template: str) -> list[JsonObject]:
    """The messages of a chat as the template of that Jinja text takes them.

    Raises:
        InputError: they are no messages, one has no role, or a tool call is none.
    """
    if isinstance(messages, str | Mapping) or not all(isinstance(message, Mapping) for message in messages):
        raise InputError(
            "The chat is no list of messages.", expected='messages such as {"role": "user", "content": ""}'
        )
    word = reasoning_word(template)
    return [_message(number, message, word) for number, message in enumerate(messages)]


def _message(number: int, message: Message, word: str | None) -> JsonObject:
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise InputError(f"Message {number} has no role.", expected="system, user, assistant or tool")
    content = message.get("content")
    fields: JsonObject = {"role": role, "content": "" if content is None else _joined(content)}
    thoughts = next((message[name] for name in REASONING if message.get(name)), None)
    if thoughts is not None and word is not None:
        fields[word] = thoughts
    if calls := message.get("tool_calls"):
        fields["tool_calls"] = tool_calls(calls, f"message {number}")
    return fields | {name: message[name] for name in _NAMES if message.get(name)}


def _joined(content: Any) -> Any:
    """Text that came in parts as one text; what else the template may know is left as it is."""
    if not isinstance(content, list | tuple) or not content:
        return content
    parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    texts = [text for text in parts if isinstance(text, str)]
    return "".join(texts) if len(texts) == len(content) else content


def tool_calls(calls: Any, place: str) -> list[JsonObject]:
    """Tool calls with their arguments as objects, which templates print or go through; clients send them as JSON text.

    Raises:
        InputError: one of them names no function, or its arguments are no JSON object.
    """
    if not isinstance(calls, list | tuple):
        raise InputError(f"The tool calls of {place} are no list.", expected="a list of calls")
    return [_call(call, place) for call in calls]


def _call(call: Any, place: str) -> JsonObject:
    outer = call if isinstance(call, Mapping) else {}
    inner = outer.get("function") or outer
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str) or not name:
        raise InputError(
            f"A tool call of {place} names no function.",
            expected='{"type": "function", "function": {"name": "...", "arguments": "{}"}}',
        )
    arguments = inner.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)  # as in training: msgspec would round whole numbers beyond 64 bits
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"The arguments of {name!r} in {place} are no JSON: {error}.", expected="a JSON object as text"
            ) from error
    if not isinstance(arguments, Mapping):
        raise InputError(f"The arguments of {name!r} in {place} are no object.", expected="a JSON object as text")
    written: JsonObject = {"type": "function", "function": {"name": name, "arguments": dict(arguments)}}
    return {**written, "id": outer["id"]} if outer.get("id") else written
