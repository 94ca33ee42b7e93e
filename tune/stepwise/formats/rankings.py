"""Several answers to one prompt, each with a score or a rank, as UltraFeedback has them. Must not import torch.

A row becomes one pair, its best answer against its worst (the widest difference that the row tells of).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgetune.tune.stepwise.chats import Chat, Turn, pair
from edgetune.tune.stepwise.formats.format import Cells, Field, Format, FormatFault, is_word, listed, words

_ANSWERS = ("response", "text", "completion", "answer", "content", "output")
_SCORES = ("overall_score", "score", "rating", "fine-grained_score")
_RANKS = ("rank", "ranking")


def _chat(cells: Cells) -> Chat:
    ranked = _ranked(cells)
    if len(ranked) < 2 or ranked[0][0] == ranked[-1][0]:
        raise FormatFault("it has no two answers of different score or rank")
    chat = pair(words(cells["prompt"], "prompt"), ranked[-1][1], system=words(cells.get("system"), "system"))
    return replace(chat, rejected=Turn("assistant", ranked[0][1]))


def _ranked(cells: Cells) -> list[tuple[float, str]]:
    """Score and words of each answer that has both, the worst first; of ranks the lowest is the best."""
    answers = listed(cells["completions"]) or []
    apart = listed(cells["scores"]) if "scores" in cells else None
    found = []
    for place, answer in enumerate(answers):
        text = answer if isinstance(answer, str) else _first(answer, _ANSWERS)
        score = apart[place] if apart is not None and place < len(apart) else _score(answer)
        number = _number(score)
        if isinstance(text, str) and number is not None:
            found.append((number, text))
    return sorted(found, key=lambda one: one[0])


def _score(answer: object) -> object:
    score = _first(answer, _SCORES)
    if score is not None:
        return score
    rank = _number(_first(answer, _RANKS))
    return None if rank is None else -rank


def _first(answer: object, names: tuple[str, ...]) -> Any:
    return next((answer[name] for name in names if name in answer), None) if isinstance(answer, Mapping) else None


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _fits(cells: Cells) -> bool:
    return is_word(cells["prompt"]) and len(_ranked(cells)) > 1


FORMAT = Format(
    name="rankings",
    kind="chat",
    judged="pairs",
    example='{"instruction": "Say hello.", "completions": [{"response": "Hello!", "overall_score": 8}, '
    '{"response": "What?", "overall_score": 2}]}',
    fields=(
        Field("prompt", ("prompt", "instruction", "question")),
        Field("completions", ("completions", "responses", "answers")),
        Field("scores", ("scores", "ratings"), required=False),
        Field("system", ("system",), required=False),
    ),
    chat_of=_chat,
    fits=_fits,
)
