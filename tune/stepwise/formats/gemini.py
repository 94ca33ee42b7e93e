"""Gemini's tuning rows: `contents` with `role` and `parts`, and a system instruction. Must not import torch.

Vertex AI's format of supervised tuning; parts with files, pictures or calls are refused by name.
"""

from __future__ import annotations

from edgetune.tune.data.json_text import NotJson, json_value
from edgetune.tune.data.reading import word
from edgetune.tune.stepwise.chats import Chat, Turn
from edgetune.tune.stepwise.faults import kind_of
from edgetune.tune.stepwise.formats.format import (
    Cells,
    Field,
    Format,
    FormatFault,
    listed,
    role_of,
    turns_in,
    with_system,
)


def _chat(cells: Cells) -> Chat:
    turns = turns_in(cells["contents"], "contents")
    written = [
        Turn(role_of(turn.get("role", "user"), number), _words(turn.get("parts"), f"turn {number}"))
        for number, turn in enumerate(turns, start=1)
    ]
    return Chat(with_system(tuple(written), _system(cells.get("system"))))


def _system(instruction: object) -> str:
    if isinstance(instruction, str) and instruction.lstrip().startswith("{"):
        try:
            instruction = json_value(instruction)
        except NotJson:
            return word(instruction)
    if isinstance(instruction, dict):
        return _words(instruction.get("parts"), "the system instruction")
    return word(instruction)


def _words(value: object, place: str) -> str:
    """The words of `parts`: a list of objects, or one of them, each with `text` and nothing else."""
    parts = [value] if isinstance(value, dict) else listed(value)
    if not parts:
        raise FormatFault(f"the parts of {place} are {kind_of(value)}, where a list of texts was expected")
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            keys = ", ".join(part) if isinstance(part, dict) else kind_of(part)
            raise FormatFault(f"{place} has a part that is no text ({keys}), and only text can be learnt")
    return "".join(part["text"] for part in parts)


def _fits(cells: Cells) -> bool:
    turns = listed(cells["contents"])
    return turns is not None and all(isinstance(turn, dict) and "parts" in turn for turn in turns)


FORMAT = Format(
    name="gemini",
    kind="chat",
    example='{"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, '
    '{"role": "model", "parts": [{"text": "Hello!"}]}]}',
    fields=(
        Field("contents", ("contents",)),
        Field("system", ("systeminstruction", "system_instruction", "system"), required=False),
    ),
    chat_of=_chat,
    fits=_fits,
)
