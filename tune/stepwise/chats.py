"""What every format of rows becomes: a chat of turns, each of one role, with the place that it was read from.

Stands apart, because formats make chats, templates render them and training counts them. A plain text is a chat of one
assistant turn. Must not import torch or transformers: reading needs neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgetune.serve.json_types import JsonObject
from edgetune.tune.data.rows import key

# A line that begins as programs' lines do.
_INDENTED = re.compile(r"(?m)^(?:\t| {2,})\S")

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["text", "completion", "chat"]
# What somebody said of the answers: of two which is better, of one whether it is good; "" where nobody judged.
Judged = Literal["", "pairs", "votes"]


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
        reasoning: what an assistant thinks before it answers; written where the template writes it.
        name: of the speaker, or of the tool.
    """

    role: Role
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    learnt: bool = True
    reasoning: str = ""
    name: str = ""

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
        rejected: the answer that the last turn was preferred to, by somebody's judgement; None where nobody judged.
        liked: whether somebody liked the last turn; None where nobody said so.
        place: where it was read, such as "chats.jsonl, line 7"; not part of what makes two chats equal.
    """

    turns: tuple[Turn, ...]
    tools: str = ""
    place: str = field(default="", compare=False)
    rejected: Turn | None = None
    liked: bool | None = None

    @property
    def answers(self) -> tuple[int, ...]:
        """The places of the assistant's turns that say or call something and are learnt."""
        return tuple(
            i for i, turn in enumerate(self.turns) if turn.role == "assistant" and turn.learnt and not turn.is_empty
        )

    def mapped(self, change: Callable[[Turn], Turn]) -> Chat:
        """The same chat with every turn changed, the rejected answer too."""
        rejected = None if self.rejected is None else change(self.rejected)
        return replace(self, turns=tuple(map(change, self.turns)), rejected=rejected)

    @property
    def with_rejected(self) -> Chat:
        """The chat as it would be had the rejected answer been given."""
        assert self.rejected is not None
        return replace(self, turns=(*self.turns[:-1], self.rejected), rejected=None)

    def without_open_end(self) -> Chat:
        """The chat up to its last answer: nothing can be learnt from a question that nobody answers."""
        return replace(self, turns=self.turns[: self.answers[-1] + 1] if self.answers else ())


def pair(prompt: str, answer: str, *, system: str = "") -> Chat:
    """One question and its answer, after a system turn where there is one."""
    first = (Turn("system", system),) if system.strip() else ()
    return Chat((*first, Turn("user", prompt), Turn("assistant", answer)))


def whole_key(chat: Chat) -> str:
    """What makes two chats the same: roles, words, calls and judgement, whatever their case and spacing."""
    judged = _joined((chat.rejected,)) if chat.rejected is not None else "" if chat.liked is None else str(chat.liked)
    return _joined(chat.turns) + (f"\0{judged}" if judged else "")


def prompt_key(chat: Chat, kind: Kind) -> str:
    """What makes two chats ask the same: all before the last answer; of a plain text, the text."""
    return _joined(chat.turns if kind == "text" else chat.turns[:-1])


def _joined(turns: tuple[Turn, ...]) -> str:
    return "\0".join(
        f"{turn.role} {_key(turn.content)} {_key(turn.reasoning)} "
        f"{' '.join(call.name + call.arguments for call in turn.calls)}"
        for turn in turns
    )


def _key(text: str) -> str:
    """What makes two texts the same: their words, whatever case and spacing; of a program its lines as they stand."""
    if _INDENTED.search(text) is None:
        return str(key(text))
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


def message(turn: Turn) -> JsonObject:
    """The turn as a client of the bundle sends it: OpenAI's members, the arguments of calls as JSON text."""
    fields: JsonObject = {"role": turn.role, "content": turn.content}
    if turn.calls:
        fields["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]
    more = {"reasoning_content": turn.reasoning, "tool_call_id": turn.call_id, "name": turn.name}
    return fields | {name: value for name, value in more.items() if value}


def chat_to_json(chat: Chat) -> JsonObject:
    """The chat as a JSON object, without what is empty: what a data set's digest is made of."""
    rest: JsonObject = {name: value for name, value in (("tools", chat.tools), ("place", chat.place)) if value}
    if chat.rejected is not None:
        rest["rejected"] = _turn_to_json(chat.rejected)
    if chat.liked is not None:
        rest["liked"] = chat.liked
    return {"turns": list(map(_turn_to_json, chat.turns)), **rest}


def _turn_to_json(turn: Turn) -> JsonObject:
    fields: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.calls:
        fields["calls"] = [{"name": call.name, "arguments": call.arguments, "id": call.id} for call in turn.calls]
    more = {"call_id": turn.call_id, "reasoning": turn.reasoning, "name": turn.name}
    fields |= {name: value for name, value in more.items() if value}
    if not turn.learnt:
        fields["learnt"] = False
    return fields
