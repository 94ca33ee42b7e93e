"""What both routes have in common when they write: the head of every object, counts, and how an answer is told.

Each route brings its own shape, a value for one request; who makes the tokens needs to know nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import uuid4

from edgetune.serve.http.openai.tokens import TokenTexts
from edgetune.serve.json_types import JsonObject
from edgetune.serve.stepwise.answer import Generation, PromptLogprobs, TokenPiece
from edgetune.serve.stepwise.sampling import TokenLogprob


@dataclass(frozen=True)
class Head:
    """What stands in every object of one answer. `created` is Unix time in seconds."""

    id: str
    model: str
    fingerprint: str
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def new(cls, prefix: str, model: str, fingerprint: str) -> Head:
        """The head of a new answer."""
        return cls(f"{prefix}-{uuid4().hex}", model, fingerprint)

    def object(self, kind: str, choices: list[JsonObject]) -> JsonObject:
        """An object of that kind, with these choices."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }


@dataclass(frozen=True)
class Usage:
    """Tokens of a prompt, how many of them had been computed before, and tokens of its answer."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )

    @property
    def of_answer(self) -> Usage:
        """Without the prompt, which another answer to it has counted."""
        return Usage(0, self.completion_tokens)

    def object(self) -> JsonObject:
        """As OpenAI's API has it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


class Shape(Protocol):
    """How one answer is written, whole or in pieces."""

    @property
    def head(self) -> Head:
        """What stands in every object of it."""
        ...

    @property
    def kind(self) -> str:
        """What a whole answer is called."""
        ...

    @property
    def stream_kind(self) -> str:
        """What an event is called."""
        ...

    def answer(self, generation: Generation) -> JsonObject:
        """The one choice of a whole answer."""
        ...

    def opening(self, prompt_logprobs: PromptLogprobs) -> JsonObject | None:
        """The choice of an event before the first piece, where there is one."""
        ...

    def piece(self, piece: TokenPiece) -> list[JsonObject]:
        """The choices of the events that tell of a piece, one each."""
        ...


def token_logprobs(logprobs: Sequence[TokenLogprob], texts: TokenTexts) -> list[JsonObject]:
    """Log-probabilities as the chat route writes them: one object a token, with the likeliest beside it."""
    return [
        {
            **_written(one.token_id, one.logprob, texts),
            "top_logprobs": [_written(token, logprob, texts) for token, logprob in one.top],
        }
        for one in logprobs
    ]


def _written(token: int, logprob: float, texts: TokenTexts) -> JsonObject:
    return {"token": texts.text(token), "logprob": sayable_logprob(logprob), "bytes": list(texts.raw(token))}


def sayable_logprob(logprob: float) -> float:
    """A log-probability that JSON can carry: OpenAI writes -9999 for what is impossible."""
    return logprob if logprob > -9999.0 else -9999.0
