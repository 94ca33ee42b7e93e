"""The two routes that generate, as bare ASGI applications: an answer whole, or as a stream of events.

They differ in what they read and in the shape of what they write, which chat.py and completions.py have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from edgetune.serve.bundle import GRAPH_NAME
from edgetune.serve.errors import EdgetuneError, InputError, MissingDependency
from edgetune.serve.http.access import Visit, visit_of
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.openai.chat import ChatRequest, ChatShape, read_chat
from edgetune.serve.http.openai.choices import Choice, Choices
from edgetune.serve.http.openai.completions import (
    DEFAULT_TOKENS,
    CompletionRequest,
    CompletionShape,
    read_completion,
)
from edgetune.serve.http.openai.faults import Unfit, refusal
from edgetune.serve.http.openai.generating import Generating, asked_name
from edgetune.serve.http.openai.shapes import Head, Shape
from edgetune.serve.http.openai.sse import EventStream
from edgetune.serve.http.openai.tokens import TokenTexts
from edgetune.serve.http.reply import Reply, json_reply
from edgetune.serve.http.served import Served
from edgetune.serve.stepwise.generator import Generator


class MakeShape(Protocol):
    """Makes the shape of an answer to a prompt: the head, tokens' texts where they are wanted, its number, the ids."""

    def __call__(self, head: Head, texts: TokenTexts | None, index: int, prompt: Sequence[int], text: str) -> Shape:
        """The shape; `text` is that of the prompt."""
        ...


@dataclass(frozen=True)
class Question:
    """What a body asks for.

    Attributes:
        request: its members.
        read_prompts: makes the ids of its prompts with a model's tokenizer and template.
        default_tokens: of an answer where the client does not say; None takes what is left of the context.
        prefix: of the answer's id.
        shape: how an answer is written.
        prompts: as the body has them: chats, texts or ids.
        echoes: whether the prompt stands before the answer.
    """

    request: ChatRequest | CompletionRequest
    read_prompts: Callable[[Generator], Sequence[Sequence[int]]]
    default_tokens: int | None
    prefix: str
    shape: MakeShape
    prompts: Sequence[Any]
    echoes: bool = False


def chat_question(body: bytes) -> Question:
    """Understand the body of a chat.

    Raises:
        Unfit: 400.
    """
    request = read_chat(body)
    names = tuple(tool["function"]["name"] for tool in request.offered)

    def read_prompts(generator: Generator) -> Sequence[Sequence[int]]:
        if request.schema is not None:
            _try_schema(generator, request.schema)
        variables = request.chat_template_kwargs or {}
        return [generator.chat_ids(request.messages, tools=request.offered or None, variables=variables)]

    def shape(head: Head, texts: TokenTexts | None, index: int, prompt: Sequence[int], text: str) -> Shape:
        return ChatShape(head, texts, index, names, several=request.parallel_tool_calls is not False)

    return Question(request, read_prompts, None, "chatcmpl", shape, [request.messages])


def _try_schema(generator: Generator, schema: str) -> None:
    """Make a constraint once, beside the event loop: the first takes long.

    Raises:
        Unfit: 400; the schema cannot be followed, or what follows schemas is not installed.
    """
    try:
        generator.constraints.of_schema(schema)
    except (InputError, MissingDependency) as error:
        raise Unfit(
            error.found, expected=error.expected, action=error.action, param="response_format", code="invalid_value"
        ) from error


def completion_question(body: bytes) -> Question:
    """Understand the body of a completion.

    Raises:
        Unfit: 400.
    """
    request, prompts = read_completion(body)

    def read_prompts(generator: Generator) -> Sequence[Sequence[int]]:
        return [generator.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]

    def shape(head: Head, texts: TokenTexts | None, index: int, prompt: Sequence[int], text: str) -> Shape:
        given = prompts[index // request.choices]
        echo = (given if isinstance(given, str) else text) if request.echo else None
        return CompletionShape(head, texts, index, echo, tuple(prompt))

    return Question(request, read_prompts, DEFAULT_TOKENS, "cmpl", shape, prompts, echoes=bool(request.echo))


class GenerationRoute:
    """One of the routes.

    Args:
        name: in the metrics.
        generating: what makes the answers.
        limits: of the server.
        understand: from a body to the question in it.
    """

    def __init__(
        self, name: str, generating: Generating, limits: Limits, understand: Callable[[bytes], Question]
    ) -> None:
        self._name = name
        self._generating = generating
        self._limits = limits
        self._understand = understand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = visit_of(scope)
        visit.route = self._name
        stream = EventStream(send)
        seconds = self._generating.settings.generation_seconds
        try:
            reply = await self._limits.attend(scope, receive, partial(self._answer, visit, stream), seconds=seconds)
        except EdgetuneError as error:
            if not stream.begun:
                raise
            refused, _ = refusal(scope["path"], error)
            visit.status = refused.status  # in log and metrics: the client was told 200 when the stream began
            await stream.fail(refused)
        else:
            if reply is not None:
                await reply.send(send)

    async def _answer(self, visit: Visit, stream: EventStream, body: bytes) -> Reply | None:
        question = self._understand(body)
        request = question.request
        with self._generating.lease(visit.asked(request.model, request.user or "")) as (served, adapter):
            visit.model, visit.texts = served.name, 1
            head = Head.new(question.prefix, asked_name(served, adapter), _fingerprint(served))
            choices = Choices(self._generating, served, await self._choices(served, adapter, question, head))
            if request.wants_stream:
                kind = ChatShape.stream_kind if isinstance(request, ChatRequest) else CompletionShape.stream_kind
                await _stream(choices, head, kind, stream, usage=request.wants_usage)
                self._keep(visit, served, question, choices)
                await stream.end()
                return None
            kind = ChatShape.kind if isinstance(request, ChatRequest) else CompletionShape.kind
            answers = await choices.whole()
            self._keep(visit, served, question, choices)
            return json_reply({**head.object(kind, answers), "usage": choices.usage.object()})

    def _keep(self, visit: Visit, served: Served, question: Question, choices: Choices) -> None:
        if self._generating.recorder is None:
            return
        prompts = [
            served.generator.text_of(prompt) if prompt and isinstance(prompt[0], int) else prompt
            for prompt in question.prompts
        ]
        self._generating.recorder.keep_texts(visit, served, prompts, choices.texts)

    async def _choices(self, served: Served, adapter: str | None, question: Question, head: Head) -> list[Choice]:
        """The answers to come, in the order of the prompts and of each prompt's answers."""
        request, likeliest = question.request, question.request.likeliest
        tasks = await self._generating.tasks(
            served,
            adapter,
            question.read_prompts,
            lambda tokens: request.sampling(
                max_tokens=tokens,
                logprobs=likeliest,
                defaults=served.generator.defaults,
                echo_logprobs=question.echoes and likeliest is not None,
            ),
            asked=request.asked_tokens,
            default=question.default_tokens,
        )
        texts = await self._generating.token_texts(served) if likeliest is not None else None
        choices = []
        for number, task in enumerate(tasks):
            text = served.generator.text_of(task.prompt_ids) if question.echoes else ""
            for place in range(request.choices):
                shape = question.shape(head, texts, number * request.choices + place, task.prompt_ids, text)
                choices.append(Choice(task.seeded(place), shape, counts_prompt=place == 0))
        return choices


async def _stream(choices: Choices, head: Head, kind: str, stream: EventStream, *, usage: bool) -> None:
    """Send the events of all answers; the first when a first piece is there, so that a fault has its status."""
    rest = {"usage": None} if usage else {}
    async for choice in choices.events():
        await stream.tell({**head.object(kind, [choice]), **rest})
    if usage:
        await stream.tell({**head.object(kind, []), "usage": choices.usage.object()})


def _fingerprint(served: Served) -> str:
    """The same where the same graph and weights answer in the same way: seeds hold for one fingerprint.

    Where answers are computed alone, they do too under any load.
    """
    files = served.bundle.manifest.files
    digests = "".join(files[name].sha256 for name in sorted(files) if name.startswith(GRAPH_NAME))
    way = "-alone" if served.scheduler.alone else ""
    return "fp_" + hashlib.sha256(digests.encode()).hexdigest()[:12] + way
