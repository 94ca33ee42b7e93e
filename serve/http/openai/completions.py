"""POST /v1/completions: what its body may say, and how its answers are written.

Source: OpenAI's API reference, "Completions" (legacy). One prompt a request: a text, or the ids of its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from edgetune.serve.http.openai.faults import Unfit
from edgetune.serve.http.openai.requests import COMMON_NEUTRALS, MOST_TOP_LOGPROBS, AnswerRequest, read_request
from edgetune.serve.http.openai.shapes import Head, sayable_logprob
from edgetune.serve.http.openai.tokens import TokenTexts
from edgetune.serve.json_types import JsonObject
from edgetune.serve.stepwise.answer import Generation, TokenPiece
from edgetune.serve.stepwise.sampling import TokenLogprob

# What an answer has where its client does not say: the API's own default.
DEFAULT_TOKENS = 16


class CompletionRequest(AnswerRequest, forbid_unknown_fields=True, kw_only=True):
    """The body. `best_of`, `echo` and `suffix` are refused unless they ask for nothing."""

    prompt: str | list[Any]
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None

    @property
    def asked_tokens(self) -> int | None:
        """The most tokens that the answer may have."""
        return self.max_tokens

    @property
    def likeliest(self) -> int | None:
        """How many of the likeliest tokens to tell with each; None where no log-probabilities are wanted."""
        return self.logprobs


_NEUTRALS: dict[str, tuple[Any, ...]] = {**COMMON_NEUTRALS, "best_of": (1,), "echo": (False,), "suffix": ("",)}
_DECODER = msgspec.json.Decoder(CompletionRequest)


def read_completion(body: bytes) -> tuple[CompletionRequest, str | list[int]]:
    """Understand a request's body: the request, and its prompt as a text or as ids.

    Raises:
        Unfit: 400; no JSON, a member that is not known, wrong or not supported, or no single prompt.
    """
    request = read_request(body, _DECODER, _NEUTRALS)
    prompt: Any = request.prompt
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, list) and any(isinstance(part, str | list) for part in prompt):
        raise Unfit(
            f"There are {len(prompt)} prompts in one request.",
            expected="one prompt",
            action="send a request for each: they are answered together all the same",
            param="prompt",
            code="unsupported_value",
        )
    if isinstance(prompt, list) and not all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
        raise Unfit("The prompt holds what is no token.", expected="whole numbers, or a text", param="prompt")
    if not prompt:
        raise Unfit("The prompt is empty.", expected="at least one token", param="prompt", code="invalid_value")
    return request, prompt


@dataclass
class CompletionShape:
    """How a text's continuation is written. `texts` is None where no log-probabilities were asked for."""

    head: Head
    texts: TokenTexts | None
    kind: str = "text_completion"
    stream_kind: str = "text_completion"
    _characters: int = field(default=0, init=False)  # told so far, where the offsets of the next tokens begin

    def answer(self, generation: Generation) -> JsonObject:
        """The one choice of a whole answer."""
        return self._choice(generation.text, generation.logprobs, generation.finish)

    def opening(self) -> None:
        """Nothing stands before the first piece."""
        return

    def piece(self, piece: TokenPiece) -> list[JsonObject]:
        """The piece's text, and with the last one why it was the last."""
        return [self._choice(piece.text, piece.logprobs, piece.finish)]

    def _choice(self, text: str, logprobs: tuple[TokenLogprob, ...], finish: str | None) -> JsonObject:
        return {"index": 0, "text": text, "logprobs": self._logprobs(logprobs), "finish_reason": finish}

    def _logprobs(self, logprobs: tuple[TokenLogprob, ...]) -> dict[str, Any] | None:
        """Four lists side by side; an offset is that of the token's first character in the answer."""
        texts = self.texts
        if texts is None:
            return None
        offsets = []
        for one in logprobs:
            offsets.append(self._characters)
            self._characters += len(texts.raw(one.token_id).decode("utf-8", "ignore"))
        return {
            "tokens": [texts.text(one.token_id) for one in logprobs],
            "token_logprobs": [sayable_logprob(one.logprob) for one in logprobs],
            # Best last, so that of two tokens with the same text the better one stays.
            "top_logprobs": [
                {texts.text(token): sayable_logprob(logprob) for token, logprob in reversed(one.top)}
                for one in logprobs
            ],
            "text_offset": offsets,
        }
