"""Alpaca rows: an instruction, perhaps an input that it is about, and the output. Must not import torch.

The format of Stanford Alpaca (2023); `system` and `history` (earlier pairs) are LLaMA-Factory's additions, `context`
and `response` Dolly's names.
"""

from __future__ import annotations

from edgetune.tune.stepwise.chats import Chat, Turn, pair
from edgetune.tune.stepwise.formats.format import (
    Cells,
    Field,
    Format,
    FormatFault,
    is_word,
    listed,
    with_system,
    words,
)


def _chat(cells: Cells) -> Chat:
    instruction, more = words(cells["instruction"], "instruction"), words(cells.get("input"), "input")
    prompt = f"{instruction}\n\n{more}" if instruction.strip() and more.strip() else instruction or more
    turns = (*_history(cells.get("history")), *pair(prompt, words(cells["output"], "output")).turns)
    return Chat(with_system(turns, words(cells.get("system"), "system")))


def _history(value: object) -> tuple[Turn, ...]:
    """Earlier questions and answers, a list of two each."""
    if value is None or value == "":
        return ()
    turns: list[Turn] = []
    for earlier in listed(value) or [None]:
        if not isinstance(earlier, list) or len(earlier) != 2:
            raise FormatFault("history is no list of pairs of a question and its answer")
        turns += pair(words(earlier[0], "history"), words(earlier[1], "history")).turns
    return tuple(turns)


FORMAT = Format(
    name="alpaca",
    kind="chat",
    example='{"instruction": "Translate to French.", "input": "Good morning", "output": "Bonjour"}',
    fields=(
        Field("instruction", ("instruction", "指令")),
        Field("input", ("input", "context", "输入"), required=False),
        Field("output", ("output", "response", "answer", "输出")),
        Field("system", ("system",), required=False),
        Field("history", ("history",), required=False),
    ),
    chat_of=_chat,
    fits=lambda cells: is_word(cells["instruction"]) and is_word(cells["output"]),
    asks=("instruction", "input"),
)
