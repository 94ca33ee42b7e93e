"""What every format of rows becomes: a chat of turns, each of one role, with the place that it was read from.

Stands apart, because formats make chats, templates render them and training counts them. A plain text is a chat of one
assistant turn. Must not import torch or transformers: reading needs neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgetune.serve.json_types import JsonObject
from edgetune.tune.data.rows import key

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["text", "completion", "chat"]


@dataclass(frozen=True)
class ToolCall:
    """A call that an assistant turn makes; `arguments` is a JSON object as text."""

    name: str
    arguments: str = "{}"
    id: str = ""


@dataclass(frozen=True)
class Turn:
    """What one role says, and the tools that it calls.

    Args:
        call_id: ties a tool's turn to the call that it answers.
        learnt: False for an answer that stands there as context alone.
    """

    role: Role
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    learnt: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether it neither says nor calls anything."""
        return not self.content.strip() and not self.calls


@dataclass(frozen=True)
class Chat:
    """Turns in their order.

    Args:
        turns: a plain text is one assistant turn, a prompt with its completion a user and an assistant turn.
        tools: the tools offered, a JSON list of function schemas as text; empty where there are none.
        place: where it was read, such as "chats.jsonl, line 7"; not part of what makes two chats equal.
    """

    turns: tuple[Turn, ...]
    tools: str = ""
    place: str = field(default="", compare=False)

    @property
    def answers(self) -> tuple[int, ...]:
        """The places of the assistant's turns that say or call something and are learnt."""
        return tuple(
            i for i, turn in enumerate(self.turns) if turn.role == "assistant" and turn.learnt and not turn.is_empty
        )

    def mapped(self, change: Callable[[str], str]) -> Chat:
        """The same chat with every turn's content changed."""
        return replace(self, turns=tuple(replace(turn, content=change(turn.content)) for turn in self.turns))

    def without_open_end(self) -> Chat:
        """The chat up to its last answer: nothing can be learnt from a question that nobody answers."""
        return replace(self, turns=self.turns[: self.answers[-1] + 1] if self.answers else ())


def pair(prompt: str, answer: str, *, system: str = "") -> Chat:
    """One question and its answer, after a system turn where there is one."""
    first = (Turn("system", system),) if system.strip() else ()
    return Chat((*first, Turn("user", prompt), Turn("assistant", answer)))


def whole_key(chat: Chat) -> str:
    """What makes two chats the same: roles, words and calls, whatever their case and spacing."""
    return _joined(chat.turns)


def prompt_key(chat: Chat, kind: Kind) -> str:
    """What makes two chats ask the same: all before the last answer; of a plain text, the text."""
    return _joined(chat.turns if kind == "text" else chat.turns[:-1])


def _joined(turns: tuple[Turn, ...]) -> str:
    return "\0".join(
        f"{turn.role} {key(turn.content)} {' '.join(call.name + call.arguments for call in turn.calls)}"
        for turn in turns
    )


def message(turn: Turn) -> JsonObject:
    """The turn as chat templates take it: role, content and, where there are any, the tool calls."""
    fields: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.calls:
        fields["tool_calls"] = [_call(call) for call in turn.calls]
    if turn.call_id:
        fields["tool_call_id"] = turn.call_id
    return fields


def _call(call: ToolCall) -> JsonObject:
    # Templates print the arguments with tojson, so they are given as an object.
    function = {"name": call.name, "arguments": json.loads(call.arguments)}
    return {"type": "function", "function": function, **({"id": call.id} if call.id else {})}


def chat_to_json(chat: Chat) -> JsonObject:
    """The chat as a JSON object, without what is empty: what a data set's digest is made of."""
    turns = []
    for turn in chat.turns:
        fields: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.calls:
            fields["calls"] = [{"name": call.name, "arguments": call.arguments, "id": call.id} for call in turn.calls]
        if turn.call_id:
            fields["call_id"] = turn.call_id
        if not turn.learnt:
            fields["learnt"] = False
        turns.append(fields)
    more = {name: value for name, value in (("tools", chat.tools), ("place", chat.place)) if value}
    return {"turns": turns, **more}
