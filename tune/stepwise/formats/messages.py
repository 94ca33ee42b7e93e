"""OpenAI's messages: turns with `role` and `content`, with system and tool turns. Must not import torch.

The format of OpenAI's chat fine-tuning and of TRL; an answer whose `weight` is 0 is context that is not learnt.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgetune.tune.data.reading import word
from edgetune.tune.stepwise.chats import Chat, Turn
from edgetune.tune.stepwise.faults import kind_of
from edgetune.tune.stepwise.formats.format import (
    Cells,
    Field,
    Format,
    FormatFault,
    calls_of,
    checked,
    listed,
    role_of,
    tools_of,
    turns_in,
    with_system,
    words,
)


def _chat(cells: Cells) -> Chat:
    turns = tuple(_turn(turn, number) for number, turn in enumerate(turns_in(cells["messages"], "messages"), start=1))
    turns = with_system(turns, words(cells.get("system"), "system"))
    return checked(Chat(turns, tools_of(cells.get("tools"))))


def _turn(written: Mapping[str, object], number: int) -> Turn:
    if "role" not in written:
        raise FormatFault(f"turn {number} has the keys {', '.join(written) or 'none'}, not role and content")
    role = role_of(written["role"], number)
    calls = calls_of(written.get("tool_calls"), number)
    if "content" not in written and not calls:
        raise FormatFault(f"turn {number} has neither content nor tool_calls")
    weight = written.get("weight", written.get("loss_weight"))
    if weight is not None and not isinstance(weight, int | float):
        raise FormatFault(f"the weight of turn {number} is {kind_of(weight)}, where 0 or 1 was expected")
    content, call_id = _content(written.get("content"), number), word(written.get("tool_call_id"))
    return Turn(role, content, calls, call_id, learnt=role != "assistant" or weight is None or weight > 0)


def _content(value: object, number: int) -> str:
    """Words, or the words of a list of parts, each `{"type": "text", "text": ...}`."""
    if not isinstance(value, list):
        return words(value, f"the content of turn {number}")
    pieces = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        text = part.get("text", part.get("value")) if isinstance(part, dict) else None
        if kind != "text" or not isinstance(text, str):
            raise FormatFault(f"turn {number} has a part of type {kind!r}, where only text can be learnt")
        pieces.append(word(text))
    return "".join(pieces)


def _fits(cells: Cells) -> bool:
    turns = listed(cells["messages"])
    return turns is not None and all(isinstance(turn, dict) and "role" in turn for turn in turns)


FORMAT = Format(
    name="messages",
    kind="chat",
    example='{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}',
    fields=(
        Field("messages", ("messages", "conversations", "conversation", "dialog", "chat")),
        Field("system", ("system",), required=False),
        Field("tools", ("tools",), required=False),
    ),
    chat_of=_chat,
    fits=_fits,
)
