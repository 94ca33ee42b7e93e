"""Plain texts, one a row: a model learns all of their tokens. Must not import torch or transformers."""

from __future__ import annotations

from edgetune.tune.stepwise.chats import Chat, Turn
from edgetune.tune.stepwise.formats.format import Cells, Field, Format, is_word, words


def _chat(cells: Cells) -> Chat:
    return Chat((Turn("assistant", words(cells["text"], "text")),))


FORMAT = Format(
    name="text",
    kind="text",
    example='{"text": "Once upon a time there was a cat."}',
    fields=(Field("text", ("text", "content", "document", "story", "body", "文本", "内容")),),
    chat_of=_chat,
    fits=lambda cells: is_word(cells["text"]),
    asks=("text",),
)
