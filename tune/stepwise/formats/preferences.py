"""Pairs of answers of which somebody preferred one: TRL's, LLaMA-Factory's and LLaMA-Factory v1's rows. Must not import
torch or transformers.

The prompt is all that both answers share; of its own answers nothing is learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgetune.tune.stepwise.chats import Chat, Turn, pair
from edgetune.tune.stepwise.faults import kind_of
from edgetune.tune.stepwise.formats import messages, sharegpt
from edgetune.tune.stepwise.formats.format import (
    CHAT_COLUMNS,
    Cells,
    Field,
    Format,
    FormatFault,
    is_word,
    listed,
    object_of,
    tools_of,
    with_system,
    words,
)


def _pair_of_words(cells: Cells) -> Chat:
    chat = pair(words(cells["prompt"], "prompt"), words(cells["chosen"], "chosen"))
    return replace(chat, rejected=Turn("assistant", words(cells["rejected"], "rejected")))


def _pair_of_messages(cells: Cells) -> Chat:
    """Both answers with the prompt before them, or after a prompt of their own, which is messages or words."""
    asked = _asked(cells.get("prompt"))
    chosen, rejected = (_behind(asked, messages.turns_of(cells, field)) for field in ("chosen", "rejected"))
    before, others = chosen[:-1], rejected[:-1]
    if [(turn.role, turn.content) for turn in before] != [(turn.role, turn.content) for turn in others]:
        raise FormatFault("chosen and rejected differ before their last turn, where they were expected to part")
    turns = with_system(context_of(before), words(cells.get("system"), "system"))
    chat = Chat((*turns, answer_in(chosen, "chosen")), tools_of(cells.get("tools")))
    return replace(chat, rejected=answer_in(rejected, "rejected"))


def _asked(prompt: Any) -> tuple[Turn, ...]:
    if prompt is None or prompt == "":
        return ()
    if messages.are_messages(prompt):
        return messages.turns_of({"prompt": prompt}, "prompt")
    return (Turn("user", words(prompt, "prompt")),)


def _behind(asked: tuple[Turn, ...], turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Turns with what was asked before them, unless they begin with it already, as UltraFeedback's do."""
    return turns if turns and turns[0].role != "assistant" else (*asked, *turns)


def context_of(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Turns that are asked with, of which nothing is learnt."""
    return tuple(replace(turn, learnt=turn.role != "assistant") for turn in turns)


def answer_in(turns: tuple[Turn, ...], field: str) -> Turn:
    """The last of the turns, an assistant's.

    Raises:
        FormatFault: there is none, or somebody else has the last word.
    """
    if not turns or turns[-1].role != "assistant":
        raise FormatFault(f"{field} ends with {turns[-1].role if turns else 'nothing'}, where an answer was expected")
    return replace(turns[-1], learnt=True)


def _pair_of_sharegpt(cells: Cells) -> Chat:
    asked = sharegpt.FORMAT.chat_of({name: cells[name] for name in cells if name not in ("chosen", "rejected")})
    chosen, rejected = (
        answer_in((sharegpt.turn_of(_answer(cells[field], field), len(asked.turns) + 1),), field)
        for field in ("chosen", "rejected")
    )
    return replace(asked, turns=(*context_of(asked.turns), chosen), rejected=rejected)


def _answer(value: Any, field: str) -> Mapping[str, Any]:
    turn = object_of(value)
    if turn is None:
        raise FormatFault(f"{field} is {kind_of(value)}, where an object with from and value was expected")
    return turn


PAIRS = Format(
    name="preferences",
    kind="completion",
    judged="pairs",
    example='{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}',
    fields=(Field("prompt", ("prompt", "question")), Field("chosen", ("chosen",)), Field("rejected", ("rejected",))),
    chat_of=_pair_of_words,
    fits=lambda cells: (
        all(is_word(cells[name]) and listed(cells[name]) is None for name in cells)
        and object_of(cells["chosen"]) is None
    ),
    asks=("prompt",),
)

PAIRS_OF_MESSAGES = Format(
    name="preferences-messages",
    kind="chat",
    judged="pairs",
    example='{"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Hello!"}], '
    '"rejected": [{"role": "assistant", "content": "What?"}]}',
    fields=(
        Field("chosen", ("chosen", "chosen_messages")),
        Field("rejected", ("rejected", "rejected_messages")),
        Field("prompt", ("prompt",), required=False),
        Field("system", ("system",), required=False),
        Field("tools", ("tools",), required=False),
    ),
    chat_of=_pair_of_messages,
    fits=lambda cells: messages.are_messages(cells["chosen"]) and messages.are_messages(cells["rejected"]),
)

PAIRS_OF_SHAREGPT = Format(
    name="preferences-sharegpt",
    kind="chat",
    judged="pairs",
    example='{"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello!"}, '
    '"rejected": {"from": "gpt", "value": "What?"}}',
    fields=(
        Field("conversations", CHAT_COLUMNS),
        Field("chosen", ("chosen",)),
        Field("rejected", ("rejected",)),
        Field("system", ("system",), required=False),
        Field("tools", ("tools",), required=False),
    ),
    chat_of=_pair_of_sharegpt,
    fits=lambda cells: all(object_of(cells[name]) is not None for name in ("chosen", "rejected")),
)
