"""Answers that somebody liked or disliked: TRL's and LLaMA-Factory's rows of KTO, thumbs up and down. Must not import
torch or transformers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgetune.tune.stepwise.chats import Chat, pair
from edgetune.tune.stepwise.formats import alpaca, messages
from edgetune.tune.stepwise.formats.format import CHAT_COLUMNS, Cells, Field, Format, FormatFault, is_word, words
from edgetune.tune.stepwise.formats.preferences import answer_in, context_of

_LIKED = ("true", "1", "up", "thumbs_up", "thumbs up", "👍", "good", "like", "liked", "yes")
_DISLIKED = ("false", "0", "-1", "down", "thumbs_down", "thumbs down", "👎", "bad", "dislike", "disliked", "no")
VOTES = ("label", "kto_tag", "vote", "thumbs", "thumbs_up", "liked")


def vote_of(value: Any) -> bool | None:
    """What a cell says: liked, disliked, or None for neither."""
    word = str(value).strip().casefold()
    return True if word in _LIKED else False if word in _DISLIKED else None


def _is_plainly_vote(value: Any) -> bool:
    """Whether a cell is a vote beyond doubt: 0 and 1, or yes and no, may as well be labels of pairs of texts."""
    return isinstance(value, bool) or str(value).strip().casefold() in (*_LIKED[2:6], *_DISLIKED[3:7])


def _judged(chat: Chat, value: Any) -> Chat:
    liked = vote_of(value)
    if liked is None:
        raise FormatFault(f"the vote is {value!r:.40}, where true or false (or up or down) was expected")
    return replace(chat, turns=(*context_of(chat.turns[:-1]), answer_in(chat.turns, "the chat")), liked=liked)


def _vote_on_words(cells: Cells) -> Chat:
    return _judged(pair(words(cells["prompt"], "prompt"), words(cells["completion"], "completion")), cells["label"])


def _vote_on_messages(cells: Cells) -> Chat:
    chat = messages.FORMAT.chat_of({name: cells[name] for name in cells if name != "label"})
    return _judged(chat, cells["label"])


def _vote_on_alpaca(cells: Cells) -> Chat:
    chat = alpaca.FORMAT.chat_of({name: cells[name] for name in cells if name != "label"})
    return _judged(chat, cells["label"])


VOTES_ON_WORDS = Format(
    name="votes",
    kind="completion",
    judged="votes",
    example='{"prompt": "The sky is", "completion": " blue.", "label": true}',
    fields=(
        Field("prompt", ("prompt",)),
        Field("completion", ("completion", "response", "output", "answer")),
        Field("label", VOTES),
    ),
    chat_of=_vote_on_words,
    fits=lambda cells: is_word(cells["prompt"]) and is_word(cells["completion"]) and _is_plainly_vote(cells["label"]),
    asks=("prompt",),
)

VOTES_ON_MESSAGES = Format(
    name="votes-messages",
    kind="chat",
    judged="votes",
    example='{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "What?"}], '
    '"label": false}',
    fields=(
        Field("messages", ("messages", *(name for name in CHAT_COLUMNS if name != "messages"))),
        Field("label", VOTES),
        Field("system", ("system",), required=False),
        Field("tools", ("tools",), required=False),
    ),
    chat_of=_vote_on_messages,
    fits=lambda cells: messages.are_messages(cells["messages"]) and _is_plainly_vote(cells["label"]),
)

VOTES_ON_ALPACA = Format(
    name="votes-alpaca",
    kind="chat",
    judged="votes",
    example='{"instruction": "Say hello.", "input": "", "output": "What?", "kto_tag": false}',
    fields=(*alpaca.FORMAT.fields, Field("label", ("kto_tag",))),
    chat_of=_vote_on_alpaca,
    fits=lambda cells: alpaca.FORMAT.fits(cells) and _is_plainly_vote(cells["label"]),
    template=alpaca.FORMAT.template,
)
