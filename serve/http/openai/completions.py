"""POST /v1/completions: what its body may say, and how its answers are written.

Source: OpenAI's API reference, "Completions" (legacy). A prompt is a text, or the ids of its tokens; a request may have
several, as the evaluation harnesses send them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from edgetune.serve.http.openai.faults import Unfit
from edgetune.serve.http.openai.requests import MOST_CHOICES, MOST_TOP_LOGPROBS, AnswerRequest, read_request
from edgetune.serve.http.openai.shapes import Head, sayable_logprob
from edgetune.serve.http.openai.tokens import TokenTexts
from edgetune.serve.json_types import JsonObject
from edgetune.serve.stepwise.answer import Generation, PromptLogprobs, TokenPiece
from edgetune.serve.stepwise.sampling import TokenLogprob

Prompt = str | list[int]

# What an answer has where its client does not say: the API's own default.
DEFAULT_TOKENS = 16


class CompletionRequest(AnswerRequest, forbid_unknown_fields=True, kw_only=True):
    """The body. `best_of` and `suffix` are refused unless they ask for nothing."""

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


_NEUTRALS: dict[str, tuple[Any, ...]] = {"best_of": (1,), "suffix": ("",)}
_DECODER = msgspec.json.Decoder(CompletionRequest)


def read_completion(body: bytes) -> tuple[CompletionRequest, list[Prompt]]:
    """Understand a request's body: the request, and its prompts, each a text or ids.

    Raises:
        Unfit: 400; no JSON, a member that is not known, wrong or not supported, no prompt, or too many.
    """
    request = read_request(body, _DECODER, _NEUTRALS)
    written: Any = request.prompt
    several = isinstance(written, list) and any(isinstance(part, str | list) for part in written)
    prompts = [_prompt(prompt) for prompt in (written if several else [written])]
    if len(prompts) * request.choices > MOST_CHOICES:
        raise Unfit(
            f"There are {len(prompts)} prompts, each with {request.choices} answers.",
            expected=f"at most {MOST_CHOICES} answers in one request",
            param="prompt" if len(prompts) > 1 else "n",
            code="invalid_value",
        )
    return request, prompts


def _prompt(prompt: Any) -> Prompt:
    if not isinstance(prompt, str | list):
        raise Unfit("One of the prompts is no prompt.", expected="a text, or a list of tokens", param="prompt")
    if isinstance(prompt, list) and not all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
        raise Unfit("The prompt holds what is no token.", expected="whole numbers, or a text", param="prompt")
    if not prompt:
        raise Unfit("The prompt is empty.", expected="at least one token", param="prompt", code="invalid_value")
    return prompt


@dataclass
class CompletionShape:
    """How a text's continuation is written. `texts` is None where no log-probabilities were asked for.

    Args:
        index: of the answer among those of its request.
        echo: the prompt's text, which stands before the answer; None leaves it out.
        prompt: its ids.
    """

    head: Head
    texts: TokenTexts | None
    index: int = 0
    echo: str | None = None
    prompt: tuple[int, ...] = ()
    kind: str = "text_completion"
    stream_kind: str = "text_completion"
    _characters: int = field(default=0, init=False)  # told so far, where the offsets of the next tokens begin

    def answer(self, generation: Generation) -> JsonObject:
        """The one choice of a whole answer."""
        opening = self.opening(generation.prompt_logprobs)
        choice = self._choice(generation.text, generation.logprobs, generation.finish)
        if opening is None:
            return choice
        lists = opening["logprobs"], choice["logprobs"]
        joined = {name: lists[0][name] + lists[1][name] for name in lists[0]} if lists[0] and lists[1] else None
        return {**choice, "text": opening["text"] + choice["text"], "logprobs": joined}

    def opening(self, prompt_logprobs: PromptLogprobs) -> JsonObject | None:
        """The prompt, where it is echoed."""
        if self.echo is None:
            return None
        told = list(zip(self.prompt, prompt_logprobs, strict=False))
        return {
            "index": self.index,
            "text": self.echo,
            "logprobs": self._lists(told),
            "finish_reason": None,
        }

    def piece(self, piece: TokenPiece) -> list[JsonObject]:
        """The piece's text, and with the last one why it was the last."""
        return [self._choice(piece.text, piece.logprobs, piece.finish)]

    def _choice(self, text: str, logprobs: tuple[TokenLogprob, ...], finish: str | None) -> JsonObject:
        told = [(one.token_id, one) for one in logprobs]
        return {"index": self.index, "text": text, "logprobs": self._lists(told), "finish_reason": finish}

    def _lists(self, told: Sequence[tuple[int, TokenLogprob | None]]) -> JsonObject | None:
        """Four lists side by side; an offset is that of the token's first character in the text."""
        texts = self.texts
        if texts is None:
            return None
        offsets = []
        for token, _ in told:
            offsets.append(self._characters)
            self._characters += len(texts.raw(token).decode("utf-8", "ignore"))
        return {
            "tokens": [texts.text(token) for token, _ in told],
            "token_logprobs": [None if one is None else sayable_logprob(one.logprob) for _, one in told],
            # Best last, so that of two tokens with the same text the better one stays.
            "top_logprobs": [
                None
                if one is None
                else {texts.text(token): sayable_logprob(logprob) for token, logprob in reversed(one.top)}
                for _, one in told
            ],
            "text_offset": offsets,
        }
