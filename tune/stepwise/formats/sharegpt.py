"""ShareGPT rows: turns that say who speaks (`from`) and what (`value`). Must not import torch or transformers.

`function_call` and `observation` are turns of tools, as LLaMA-Factory writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgetune.tune.data.json_text import NotJson, json_value
from edgetune.tune.stepwise.chats import Chat, Turn
from edgetune.tune.stepwise.formats.format import (
    CHAT_COLUMNS,
    Cells,
    Field,
    Format,
    FormatFault,
    call_of,
    listed,
    role_of,
    tools_of,
    turns_in,
    with_system,
    words,
)


def _chat(cells: Cells) -> Chat:
    turns = enumerate(turns_in(cells["conversations"], "conversations"), start=1)
    return Chat(
        with_system(tuple(turn_of(turn, number) for number, turn in turns), words(cells.get("system"), "system")),
        tools_of(cells.get("tools")),
    )


def turn_of(written: Mapping[str, Any], number: int) -> Turn:
    """The turn that an object with `from` and `value` is.

    Raises:
        FormatFault: it has not these keys, an unknown speaker, or a call that is none.
    """
    if "from" not in written or "value" not in written:
        raise FormatFault(f"turn {number} has the keys {', '.join(written) or 'none'}, not from and value")
    return _turn(written["from"], written["value"], number)


def _turn(speaker: object, value: object, number: int) -> Turn:
    role = role_of(speaker, number)
    if str(speaker).strip().casefold() != "function_call":
        return Turn(role, words(value, f"turn {number}"))
    try:
        written = json_value(value) if isinstance(value, str) else value
    except NotJson as error:
        raise FormatFault(f"the function call of turn {number} is no JSON: {error.reason}") from error
    calls = written if isinstance(written, list) else [written]
    return Turn(role, "", tuple(call_of(call, number) for call in calls))


def _fits(cells: Cells) -> bool:
    turns = listed(cells["conversations"])
    return turns is not None and all(isinstance(turn, dict) and "from" in turn for turn in turns)


FORMAT = Format(
    name="sharegpt",
    kind="chat",
    example='{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}',
    fields=(
        Field("conversations", CHAT_COLUMNS),
        Field("system", ("system",), required=False),
        Field("tools", ("tools",), required=False),
    ),
    chat_of=_chat,
    fits=_fits,
)
