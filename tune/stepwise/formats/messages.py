"""OpenAI's messages: turns with `role` and `content`, with system and tool turns. Must not import torch.

The format of OpenAI's chat fine-tuning and of TRL; an answer whose `weight` is 0 is context that is not learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgetune.serve.stepwise.messages import REASONING
from edgetune.tune.data.reading import word
from edgetune.tune.stepwise.chats import Chat, Turn
from edgetune.tune.stepwise.faults import kind_of
from edgetune.tune.stepwise.formats.format import (
    CHAT_COLUMNS,
    Cells,
    Field,
    Format,
    FormatFault,
    calls_of,
    listed,
    role_of,
    tools_of,
    turns_in,
    with_system,
    words,
)


def _chat(cells: Cells) -> Chat:
    turns = with_system(turns_of(cells, "messages"), words(cells.get("system"), "system"))
    return Chat(turns, tools_of(cells.get("tools")))


def _completed(cells: Cells) -> Chat:
    """The completion's answers alone are learnt, as by TRL."""
    prompt = tuple(replace(turn, learnt=turn.role != "assistant") for turn in turns_of(cells, "prompt"))
    return Chat((*prompt, *turns_of(cells, "completion")), tools_of(cells.get("tools")))


def turns_of(cells: Cells, field: str) -> tuple[Turn, ...]:
    """The turns that a field holds.

    Raises:
        FormatFault: it holds none, or one of them is not written as a turn.
    """
    return tuple(_turn(turn, number) for number, turn in enumerate(turns_in(cells[field], field), start=1))


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
    thoughts = next((written[name] for name in REASONING if written.get(name)), None)
    return Turn(
        role,
        _content(written.get("content"), number),
        calls,
        word(written.get("tool_call_id")),
        learnt=role != "assistant" or weight is None or weight > 0,
        reasoning=words(thoughts, f"the reasoning of turn {number}"),
        name=words(written.get("name"), f"the name of turn {number}"),
    )


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


def are_messages(value: object) -> bool:
    """Whether it is a list of turns that say their role."""
    turns = listed(value)
    return turns is not None and all(isinstance(turn, dict) and "role" in turn for turn in turns)


FORMAT = Format(
    name="messages",
    kind="chat",
    example='{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}',
    fields=(
        Field("messages", ("messages", *(name for name in CHAT_COLUMNS if name != "messages"))),
        Field("system", ("system",), required=False),
        Field("tools", ("tools",), required=False),
    ),
    chat_of=_chat,
    fits=lambda cells: are_messages(cells["messages"]),
)

PROMPT_AND_COMPLETION = Format(
    name="prompt-completion-messages",
    kind="chat",
    example='{"prompt": [{"role": "user", "content": "Hi"}], '
    '"completion": [{"role": "assistant", "content": "Hello!"}]}',
    fields=(
        Field("prompt", ("prompt",)),
        Field("completion", ("completion",)),
        Field("tools", ("tools",), required=False),
    ),
    chat_of=_completed,
    fits=lambda cells: are_messages(cells["prompt"]) and are_messages(cells["completion"]),
)
