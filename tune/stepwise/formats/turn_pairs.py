"""Chats as pairs of what a human says and what the AI answers, as primers write them: `{"human": ..., "AI": ...}`.

The pairs of a row stand in its column of turns, or are the row itself, a list. Must not import torch or transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgetune.tune.stepwise.chats import Chat, Turn, pair
from edgetune.tune.stepwise.formats import question_answer
from edgetune.tune.stepwise.formats.format import (
    CHAT_COLUMNS,
    Cells,
    Field,
    Format,
    FormatFault,
    listed,
    turns_in,
    with_system,
    words,
)


def _chat(cells: Cells) -> Chat:
    turns: list[Turn] = []
    for number, written in enumerate(turns_in(cells["conversations"], "conversations"), start=1):
        columns = question_answer.FORMAT.columns_in(written, {})
        missing = {"question", "answer"} - set(columns)
        if missing:
            keys = ", ".join(written) or "none"
            raise FormatFault(f"pair {number} has the keys {keys}, none of which is its {' or '.join(sorted(missing))}")
        question, answer = (words(written[columns[field]], f"pair {number}") for field in ("question", "answer"))
        turns += pair(question, answer).turns
    return Chat(with_system(tuple(turns), words(cells.get("system"), "system")))


def is_pair(value: object) -> bool:
    """Whether a value is an object with a question and its answer, by their usual keys."""
    return isinstance(value, Mapping) and question_answer.FORMAT.may_be(value, {})


def _fits(cells: Mapping[str, Any]) -> bool:
    pairs = listed(cells["conversations"])
    return bool(pairs) and all(is_pair(one) for one in pairs or ())


FORMAT = Format(
    name="turn-pairs",
    kind="chat",
    example='{"conversations": [{"human": "Hi", "AI": "Hello!"}]}',
    fields=(Field("conversations", CHAT_COLUMNS), Field("system", ("system",), required=False)),
    chat_of=_chat,
    fits=_fits,
)
