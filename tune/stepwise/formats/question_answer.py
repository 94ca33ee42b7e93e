"""A question and its answer, as GSM8K and most small sets have them: a chat of two turns. Must not import torch."""

from __future__ import annotations

from edgetune.tune.stepwise.chats import Chat, pair
from edgetune.tune.stepwise.formats.format import Cells, Field, Format, is_word, words


def _chat(cells: Cells) -> Chat:
    question, answer = words(cells["question"], "question"), words(cells["answer"], "answer")
    return pair(question, answer, system=words(cells.get("system"), "system"))


FORMAT = Format(
    name="question-answer",
    kind="chat",
    example='{"question": "How many legs has a cat?", "answer": "Four."}',
    fields=(
        Field("question", ("question", "query", "human", "user", "人类", "用户", "问题", "问")),
        Field("answer", ("answer", "response", "ai", "assistant", "bot", "助手", "机器人", "答案", "回答", "答")),
        Field("system", ("system",), required=False),
    ),
    chat_of=_chat,
    fits=lambda cells: is_word(cells["question"]) and is_word(cells["answer"]),
    asks=("question",),
)
