"""POST /v1/chat/completions: what its body may say, and how its answers are written.

Source: OpenAI's API reference, "Chat". Tools are told to models whose template knows them, and the calls that the model
makes are read from its text; pictures and sound are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import uuid4

import msgspec

from edgetune.serve.errors import InputError
from edgetune.serve.http.openai.faults import Unfit
from edgetune.serve.http.openai.requests import MOST_TOP_LOGPROBS, AnswerRequest, read_request
from edgetune.serve.http.openai.shapes import Head, token_logprobs
from edgetune.serve.http.openai.tokens import TokenTexts
from edgetune.serve.json_types import JsonObject
from edgetune.serve.stepwise.answer import Generation, PromptLogprobs, TokenPiece
from edgetune.serve.stepwise.messages import tool_calls
from edgetune.serve.stepwise.sampling import TokenLogprob
from edgetune.serve.stepwise.tool_calls import CallStream, MadeCall, split_calls

ROLES = ("system", "developer", "user", "assistant", "tool")
MOST_MESSAGES = 2048
MOST_TOOLS = 128


class ChatRequest(AnswerRequest, forbid_unknown_fields=True, kw_only=True):
    """The body. Members behind `tool_choice` are refused unless they ask for nothing.

    `chat_template_kwargs`, variables for the template such as enable_thinking, is not OpenAI's, but other servers'.
    """

    messages: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    parallel_tool_calls: bool | None = None
    tools: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MOST_TOOLS)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: Any = None

    @property
    def asked_tokens(self) -> int | None:
        """The most tokens that the answer may have; the newer of the two names counts."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def schema(self) -> str | None:
        """The JSON Schema that the answer shall follow, as text.

        Raises:
            Unfit: response_format is none that is known.
        """
        wanted = self.response_format or {"type": "text"}
        kind, named = wanted.get("type"), wanted.get("json_schema")
        if kind == "text":
            return None
        if kind == "json_object":
            return '{"type": "object"}'
        if kind == "json_schema" and isinstance(named, dict) and isinstance(named.get("schema"), dict):
            return msgspec.json.encode(named["schema"]).decode()
        raise Unfit(
            f"response_format is of the kind {kind!r:.40}.",
            expected='{"type": "json_schema", "json_schema": {"name": "...", "schema": {}}}, "json_object" or "text"',
            param="response_format",
            code="invalid_value",
        )

    @property
    def offered(self) -> list[JsonObject]:
        """The tools that the model is told of."""
        return [] if self.tool_choice == "none" else self.tools or []

    @property
    def likeliest(self) -> int | None:
        """How many of the likeliest tokens to tell with each; None where no log-probabilities are wanted."""
        return (self.top_logprobs or 0) if self.logprobs else None


_NEUTRALS: dict[str, tuple[Any, ...]] = {
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
}
_DECODER = msgspec.json.Decoder(ChatRequest)


def read_chat(body: bytes) -> ChatRequest:
    """Understand a request's body.

    Raises:
        Unfit: 400; no JSON, a member that is not known, wrong or not supported, or messages that are no chat.
    """
    request = read_request(body, _DECODER, _NEUTRALS)
    if request.top_logprobs is not None and not request.logprobs:
        raise Unfit("top_logprobs go with logprobs.", expected='"logprobs": true', param="top_logprobs")
    if request.schema is not None and request.offered:
        raise Unfit(
            "response_format constrains the answer, and tools ask for calls beside it.",
            expected="one of them",
            param="response_format",
            code="unsupported_parameter",
        )
    for number, tool in enumerate(request.tools or []):
        _check_tool(f"tools[{number}]", tool)
    request.messages = [_message(number, message) for number, message in enumerate(request.messages)]
    if all(message["role"] != "user" for message in request.messages):
        raise Unfit(
            "None of the messages is the user's.",
            expected='at least one message with "role": "user"',
            param="messages",
            code="invalid_value",
        )
    return request


def _check_tool(place: str, tool: JsonObject) -> None:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unfit(
            f"{place} is no function.",
            expected='{"type": "function", "function": {"name": "...", "parameters": {}}}',
            param="tools",
            code="invalid_value",
        )


def _message(number: int, message: JsonObject) -> JsonObject:
    """A message as chat templates take it: a role that they know, and its content as one text."""
    place = f"messages[{number}]"
    role = message.get("role")
    if role not in ROLES:
        raise Unfit(f"{place} has the role {role!r:.40}.", expected=", ".join(ROLES), param=place, code="invalid_value")
    content = message.get("content")
    if content is None and role == "assistant" and message.get("tool_calls"):
        text = ""
    elif isinstance(content, str):
        text = content
    elif isinstance(content, list) and content:
        text = "".join(_part(f"{place}.content[{place_of}]", part) for place_of, part in enumerate(content))
    else:
        problem = "has no content" if content in (None, []) else f"has a content of type {type(content).__name__}"
        raise Unfit(f"{place} {problem}.", expected="a text, or text parts", param=place, code="invalid_value")
    if message.get("tool_calls"):
        try:
            tool_calls(message["tool_calls"], place)
        except InputError as error:
            raise Unfit(error.found, expected=error.expected, param=place, code="invalid_value") from error
    return {**message, "role": "system" if role == "developer" else role, "content": text}


def _part(place: str, part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise Unfit(f"{place} is of the kind {kind!r:.40}.", expected='{"type": "text", "text": "..."}', param=place)


@dataclass
class ChatShape:
    """How a chat's answer is written. `texts` is None where no log-probabilities were asked for.

    Args:
        index: of the answer among those of its request.
        tools: the names of those that were offered, whose calls are read from the text.
        several: whether more than the first call is told.
    """

    head: Head
    texts: TokenTexts | None
    index: int = 0
    tools: tuple[str, ...] = ()
    several: bool = True
    kind: str = "chat.completion"
    stream_kind: str = "chat.completion.chunk"

    def __post_init__(self) -> None:
        self._calls = CallStream(self.tools) if self.tools else None

    def answer(self, generation: Generation) -> JsonObject:
        """The one choice of a whole answer."""
        words, calls = split_calls(generation.text, self.tools) if self.tools else (generation.text, ())
        message: JsonObject = {"role": "assistant", "content": words, "refusal": None}
        if calls:
            message |= {"content": words or None, "tool_calls": self._written(calls)}
        return {
            "index": self.index,
            "message": message,
            "logprobs": self._logprobs(generation.logprobs),
            "finish_reason": _finish(generation.finish, calls),
        }

    def opening(self, prompt_logprobs: PromptLogprobs) -> JsonObject:
        """The choice that tells who speaks."""
        return self._delta({"role": "assistant", "content": "", "refusal": None})

    def piece(self, piece: TokenPiece) -> list[JsonObject]:
        """The piece's text, and behind the last one its calls and why it was the last."""
        text, calls = piece.text, tuple[MadeCall, ...]()
        if self._calls is not None:
            text = self._calls.push(piece.text)
            if piece.finish:
                rest, calls = self._calls.finish()
                text += rest
        choices = []
        if text or (self.texts is not None and piece.logprobs):
            choices.append({**self._delta({"content": text}), "logprobs": self._logprobs(piece.logprobs)})
        if calls:
            numbered = [{"index": number, **call} for number, call in enumerate(self._written(calls))]
            choices.append(self._delta({"tool_calls": numbered}))
        if piece.finish:
            choices.append({**self._delta({}), "finish_reason": _finish(piece.finish, calls)})
        return choices

    def _written(self, calls: Sequence[MadeCall]) -> list[JsonObject]:
        return [
            {
                "id": f"call_{uuid4().hex[:24]}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in (calls if self.several else calls[:1])
        ]

    def _delta(self, delta: JsonObject) -> JsonObject:
        return {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _logprobs(self, logprobs: tuple[TokenLogprob, ...]) -> JsonObject | None:
        return None if self.texts is None else {"content": token_logprobs(logprobs, self.texts), "refusal": None}


def _finish(finish: str, calls: Sequence[MadeCall]) -> str:
    return "tool_calls" if calls and finish == "stop" else finish
