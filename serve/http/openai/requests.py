"""What the bodies of both routes share: how to draw the answer, where it ends, and what is not to be had here.

Every member of OpenAI's API is either honoured, without effect by its nature, or refused by name unless it asks for
nothing: a parameter that is silently ignored would let a client believe its answer. Must import nothing of the web
stack, so that any bytes can be tried on it without a server.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec

from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.http.openai.faults import Unfit
from edgetune.serve.stepwise.defaults import SamplingDefaults
from edgetune.serve.stepwise.sampling import Sampling

MOST_STOPS = 16
MOST_STOP_CHARACTERS = 256
MOST_TOP_LOGPROBS = 20
MOST_CHOICES = 128  # answers of one request: its prompts times n
MOST_BIASES = 1024

_Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_Stop = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_STOP_CHARACTERS)]


class StreamOptions(msgspec.Struct):
    """`include_usage` adds a last event with the counts; `include_obfuscation` has no effect."""

    include_usage: bool = False
    include_obfuscation: bool = False


class AnswerRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The members of both routes. `top_k`, `min_p` and `repetition_penalty` are not OpenAI's, but other servers'."""

    model: str | None = None
    max_tokens: _Count | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    seed: _Seed | None = None
    stop: _Stop | Annotated[list[_Stop], msgspec.Meta(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MOST_CHOICES)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, msgspec.Meta(ge=-100, le=100)]], msgspec.Meta(max_length=MOST_BIASES)]
        | None
    ) = None
    user: str | None = None

    @property
    def wants_stream(self) -> bool:
        """Whether the answer shall come in pieces."""
        return bool(self.stream)

    @property
    def wants_usage(self) -> bool:
        """Whether the counts shall be an event of their own."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def choices(self) -> int:
        """How many answers each prompt gets."""
        return self.n or 1

    @property
    def schema(self) -> str | None:
        """The JSON Schema that the answer shall follow, as text; None leaves it free."""
        return None

    def sampling(
        self, *, max_tokens: int, logprobs: int | None, defaults: SamplingDefaults, echo_logprobs: bool = False
    ) -> Sampling:
        """How to draw the answer: by the client, else by the model's own defaults, else by OpenAI's."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        named = {
            "temperature": self.temperature,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
        }
        drawn: dict[str, Any] = {"temperature": 1.0, **defaults.values()}
        drawn |= {name: value for name, value in named.items() if value is not None}
        return Sampling(
            **drawn,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=tuple(_biases(self.logit_bias or {})),
            max_tokens=max_tokens,
            stop=tuple(stop),
            seed=self.seed,
            logprobs=logprobs,
            echo_logprobs=echo_logprobs,
            json_schema=self.schema,
        )


def _biases(written: dict[str, float]) -> Iterator[tuple[int, float]]:
    for token, bias in written.items():
        if not token.isascii() or not token.isdecimal():
            raise Unfit(
                f"logit_bias names {token!r:.40}, which is no token.",
                expected='ids of tokens as digits, such as {"50256": -100}',
                param="logit_bias",
                code="invalid_value",
            )
        yield int(token), bias


AnyRequest = TypeVar("AnyRequest", bound=AnswerRequest)


def read_request(
    body: bytes, decoder: msgspec.json.Decoder[AnyRequest], neutrals: dict[str, tuple[object, ...]]
) -> AnyRequest:
    """Understand a request's body.

    Args:
        body: as it came.
        decoder: of the route's members.
        neutrals: members that are refused unless they are null or one of these values.

    Raises:
        Unfit: 400, naming the member that is wrong.
    """
    try:
        request = decoder.decode(body)
    except NOT_JSON as error:
        raise _not_understood(body, error, decoder) from error
    for name, values in neutrals.items():
        value = getattr(request, name)
        if value is not None and value not in values:
            raise Unfit(
                f"This server does not support {name} {value!r:.60}.",
                expected=" or ".join(f"{neutral!r}" for neutral in values) + ", or none",
                action=f"leave {name} out",
                param=name,
                code="unsupported_parameter",
            )
    if request.stream_options is not None and not request.wants_stream:
        raise Unfit("stream_options go with a stream.", expected='"stream": true', param="stream_options")
    return request


def _not_understood(body: bytes, error: Exception, decoder: msgspec.json.Decoder[AnyRequest]) -> Unfit:
    """The refusal of a body, with the member at fault: no JSON, no object, one that is not known, or a wrong value."""
    expected = "a JSON object, as OpenAI's API has it"
    if not body.strip():
        return Unfit("The body is empty.", expected=expected)
    try:
        value = msgspec.json.decode(body)
    except NOT_JSON:
        return Unfit(f"The body is no JSON: {error}.", expected=expected)
    if not isinstance(value, dict):
        return Unfit(f"The body is no object, but of type {type(value).__name__}.", expected=expected)
    members = [field.encode_name for field in msgspec.structs.fields(decoder.type)]
    strangers = [name for name in value if name not in members]
    if strangers:
        name = strangers[0][:80]
        near = difflib.get_close_matches(name, members, 1)
        return Unfit(
            f"There is no member {name!r}.",
            action=f"did you mean {near[0]!r}?" if near else "leave it out: it would have no effect here",
            param=name,
            code="unknown_parameter",
        )
    place = re.search(r"`\$\.([A-Za-z_]+)", str(error))
    missing = re.search(r"required field `([a-z_]+)`", str(error))
    param = missing or place
    return Unfit(f"{error}.", param=param.group(1) if param else None, code="invalid_value" if place else None)


def answer_tokens(asked: int | None, default: int | None, *, prompt_tokens: int, context_tokens: int, most: int) -> int:
    """How many tokens an answer may have.

    Args:
        asked: by the client.
        default: where it did not ask; None takes what is left of the context.
        prompt_tokens, context_tokens: of the prompt, and of prompt and answer together.
        most: of one answer, by the server's settings.

    Raises:
        Unfit: 400; prompt and answer do not fit into the context, or more is asked for than the server gives.
    """
    room = context_tokens - prompt_tokens
    if room < 1:
        raise _too_long(
            f"The prompt has {prompt_tokens} tokens.", f"at most {context_tokens - 1}", "shorten the prompt"
        )
    if asked is not None and asked > room:
        raise _too_long(
            f"The prompt has {prompt_tokens} tokens and the answer may have {asked}: {prompt_tokens + asked} together.",
            f"at most {context_tokens} together",
            f"ask for at most {room} tokens, or shorten the prompt",
        )
    if asked is not None and asked > most:
        raise Unfit(
            f"{asked} tokens were asked for.", expected=f"at most {most} in one answer here", param="max_tokens"
        )
    return asked if asked is not None else min(room, most, default or room)


def _too_long(problem: str, expected: str, action: str) -> Unfit:
    return Unfit(problem, expected=expected, action=action, code="context_length_exceeded")
