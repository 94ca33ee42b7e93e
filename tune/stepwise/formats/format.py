"""What a format of rows is: its fields, their usual columns, and how the cells of a row become a chat.

The pieces that several formats read alike (words, lists, turns) stand here too, so that each format's own file shows
what is particular to it. Must not import torch or transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgetune.tune.data.json_text import NotJson, json_value
from edgetune.tune.data.reading import word
from edgetune.tune.stepwise.chats import Chat, Judged, Kind, Role, ToolCall, Turn
from edgetune.tune.stepwise.faults import kind_of

Cells = Mapping[str, Any]

# What data sets call the roles. A "function" of OpenAI's older messages is what the function gave back.
ROLE_WORDS: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "人类", "用户"), "user"),
    **dict.fromkeys(("assistant", "gpt", "ai", "model", "bot", "chatgpt", "function_call", "助手"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "ipython"), "tool"),
}


# The usual columns of a list of turns.
CHAT_COLUMNS = ("conversations", "conversation", "messages", "dialog", "dialogue", "chat")


class FormatFault(Exception):
    """A row is not written as its format wants; the words say in what."""


@dataclass(frozen=True)
class Field:
    """A field of a format and the columns that usually hold it, the likeliest first."""

    name: str
    usual: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True)
class Format:
    """A way to write rows.

    Args:
        name: as recipes name it.
        kind: what its rows are to a model.
        example: a row, for messages.
        fields: what a row has.
        chat_of: makes a chat of the cells by field; raises FormatFault.
        fits: whether cells by field look like this format.
        template: the named chat template that goes with it where a model has none.
        asks: the fields that a prompt is made of, where they are texts.
        judged: what its rows say of their answers beside giving them; "" for nothing.
    """

    name: str
    kind: Kind
    example: str
    fields: tuple[Field, ...]
    chat_of: Callable[[Cells], Chat]
    fits: Callable[[Cells], bool]
    template: str = "plain"
    asks: tuple[str, ...] = ()
    judged: Judged = ""

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the fields that no row may lack."""
        return tuple(field.name for field in self.fields if field.required)

    def columns_in(self, names: Mapping[str, object], recipe_columns: Mapping[str, str]) -> dict[str, str]:
        """The column of each field that `names` has one for: the recipe's, else a usual one, whatever its case."""
        folded = {name.casefold(): name for name in names}
        columns = {}
        for field in self.fields:
            recipe_column = recipe_columns.get(field.name)
            usual = next((folded[name] for name in field.usual if name in folded), None)
            column = usual if recipe_column is None else (recipe_column if recipe_column in names else None)
            if column is not None:
                columns[field.name] = column
        return columns

    def may_be(self, values: Cells, recipe_columns: Mapping[str, str]) -> bool:
        """Whether a row with these values by column looks like this format."""
        columns = self.columns_in(values, recipe_columns)
        return set(self.required) <= set(columns) and self.fits(cells(values, columns))


def cells(values: Cells, columns: Mapping[str, str]) -> dict[str, Any]:
    """The values by field; a column that the row lacks is left out."""
    return {field: values[column] for field, column in columns.items() if column in values}


def is_word(value: object) -> bool:
    """Whether the value can be read as words."""
    return value is None or (isinstance(value, (str, int, float)) and not isinstance(value, bool))


def words(value: object, field: str) -> str:
    """The value as words; None is none.

    Raises:
        FormatFault: it is a list or an object.
    """
    if isinstance(value, (list, dict)):
        raise FormatFault(f"{field} is {kind_of(value)}, where words were expected")
    return word(value)


def listed(value: object) -> list[Any] | None:
    """A list, also where a table holds it as JSON text; None where it is none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json_value(value)
        except NotJson:
            return None
    return value if isinstance(value, list) else None


def object_of(value: object) -> Mapping[str, Any] | None:
    """An object, also where a table holds it as JSON text; None where it is none."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json_value(value)
        except NotJson:
            return None
    return value if isinstance(value, dict) else None


def turns_in(value: object, field: str) -> list[Mapping[str, Any]]:
    """The turns of a row, each an object.

    Raises:
        FormatFault: the value is no list, or something else stands among its turns.
    """
    turns = listed(value)
    if turns is None:
        raise FormatFault(f"{field} is {kind_of(value)}, where a list of turns was expected")
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict):
            raise FormatFault(f"turn {number} of {field} is {kind_of(turn)}, where an object was expected")
    return turns


def role_of(value: object, number: int) -> Role:
    """The role that a word stands for.

    Raises:
        FormatFault: it stands for none.
    """
    role = ROLE_WORDS.get(value.strip().casefold()) if isinstance(value, str) else None
    if role is None:
        known = ", ".join(ROLE_WORDS)
        raise FormatFault(f"turn {number} has the role {value!r}, which is none of {known}")
    return role


def calls_of(written: object, number: int) -> tuple[ToolCall, ...]:
    """The tool calls of a turn, a list of them or none.

    Raises:
        FormatFault: it is no list, or one of them is no call.
    """
    if written is None or written == "":
        return ()
    calls = listed(written)
    if calls is None:
        raise FormatFault(f"the tool calls of turn {number} are {kind_of(written)}, where a list was expected")
    return tuple(call_of(call, number) for call in calls)


def call_of(written: object, number: int) -> ToolCall:
    """A tool call as OpenAI and ShareGPT write it; its arguments may be an object or JSON text.

    Raises:
        FormatFault: it has no name, or its arguments are no JSON object.
    """
    outer = written if isinstance(written, dict) else {}
    inner = outer.get("function") or outer
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str) or not name:
        raise FormatFault(f"a tool call of turn {number} names no function")
    arguments = inner.get("arguments") or {}
    try:
        parsed = json_value(arguments) if isinstance(arguments, str) else arguments
    except NotJson as error:
        raise FormatFault(f"the arguments of {name!r} in turn {number} are no JSON: {error.reason}") from error
    if not isinstance(parsed, dict):
        raise FormatFault(f"the arguments of {name!r} in turn {number} are {kind_of(parsed)}, not an object")
    return ToolCall(name, json.dumps(parsed, ensure_ascii=False), word(outer.get("id")))


def with_system(turns: tuple[Turn, ...], system: str) -> tuple[Turn, ...]:
    """The turns after a system turn, unless there is nothing to say or they begin with one."""
    if not system.strip() or (turns and turns[0].role == "system"):
        return turns
    return (Turn("system", system), *turns)


def tools_of(value: object) -> str:
    """The tools a row offers, as a JSON list; empty where it offers none.

    Raises:
        FormatFault: it is neither a list of objects nor JSON text of one.
    """
    if value is None or value == "" or value == []:
        return ""
    tools = listed(value)
    if tools is None or not all(isinstance(tool, dict) for tool in tools):
        raise FormatFault("tools is no list of function schemas")
    return json.dumps(tools, ensure_ascii=False) if tools else ""
