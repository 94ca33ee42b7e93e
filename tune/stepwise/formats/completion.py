"""A prompt and how it goes on, both as they stand: no template is put around them. Must not import torch."""

from __future__ import annotations

from edgetune.tune.stepwise.chats import Chat, pair
from edgetune.tune.stepwise.formats.format import Cells, Field, Format, is_word, words


def _chat(cells: Cells) -> Chat:
    return pair(words(cells["prompt"], "prompt"), words(cells["completion"], "completion"))


FORMAT = Format(
    name="prompt-completion",
    kind="completion",
    example='{"prompt": "The capital of France is", "completion": " Paris."}',
    fields=(
        Field("prompt", ("prompt",)),
        Field("completion", ("completion", "response", "output", "answer", "target")),
    ),
    chat_of=_chat,
    fits=lambda cells: is_word(cells["prompt"]) and is_word(cells["completion"]),
    asks=("prompt",),
)
