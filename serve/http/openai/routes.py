"""The two routes that generate, as bare ASGI applications: an answer whole, or as a stream of events.

They differ in what they read and in the shape of what they write, which chat.py and completions.py have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from starlette.types import Receive, Scope, Send

from edgetune.serve.bundle import GRAPH_NAME
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.http.access import Visit, visit_of
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.openai.chat import ChatRequest, ChatShape, read_chat
from edgetune.serve.http.openai.completions import (
    DEFAULT_TOKENS,
    CompletionRequest,
    CompletionShape,
    read_completion,
)
from edgetune.serve.http.openai.faults import refusal
from edgetune.serve.http.openai.generating import Generating, Task
from edgetune.serve.http.openai.shapes import Head, Shape
from edgetune.serve.http.openai.sse import EventStream
from edgetune.serve.http.openai.tokens import TokenTexts
from edgetune.serve.http.reply import Reply, json_reply
from edgetune.serve.http.served import Served
from edgetune.serve.stepwise.generator import Generator


@dataclass(frozen=True)
class Question:
    """What a body asks for.

    Attributes:
        request: its members.
        read_prompt: makes the ids of its prompt with a model's tokenizer and template.
        default_tokens: of an answer where the client does not say; None takes what is left of the context.
        prefix: of the answer's id.
        shape: how the answer is written.
    """

    request: ChatRequest | CompletionRequest
    read_prompt: Callable[[Generator], Sequence[int]]
    default_tokens: int | None
    prefix: str
    shape: Callable[[Head, TokenTexts | None], Shape]


def chat_question(body: bytes) -> Question:
    """Understand the body of a chat.

    Raises:
        Unfit: 400.
    """
    request = read_chat(body)
    return Question(request, lambda generator: generator.chat_ids(request.messages), None, "chatcmpl", ChatShape)


def completion_question(body: bytes) -> Question:
    """Understand the body of a completion.

    Raises:
        Unfit: 400.
    """
    request, prompt = read_completion(body)

    def read_prompt(generator: Generator) -> Sequence[int]:
        return generator.encode(prompt) if isinstance(prompt, str) else prompt

    return Question(request, read_prompt, DEFAULT_TOKENS, "cmpl", CompletionShape)


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
        with self._generating.lease(request.model) as served:
            visit.model, visit.texts = served.name, 1
            task = await self._generating.task(
                served,
                question.read_prompt,
                lambda tokens: request.sampling(max_tokens=tokens, logprobs=request.likeliest),
                asked=request.asked_tokens,
                default=question.default_tokens,
            )
            texts = await self._generating.token_texts(served) if request.likeliest is not None else None
            head = Head.new(question.prefix, served.name, _fingerprint(served))
            shape = question.shape(head, texts)
            if request.wants_stream:
                await self._stream(served, task, shape, stream, usage=request.wants_usage)
                return None
            with self._generating.writing(served, task) as writing:
                choice = shape.answer(await writing.whole())
            return json_reply({**head.object(shape.kind, [choice]), "usage": writing.usage.object()})

    async def _stream(self, served: Served, task: Task, shape: Shape, stream: EventStream, *, usage: bool) -> None:
        """Send the events of one answer; the first when its first piece is there, so that a fault has its status."""
        head, kind = shape.head, shape.stream_kind
        rest = {"usage": None} if usage else {}
        with self._generating.writing(served, task) as writing:
            async for piece in writing.pieces():
                opening = None if stream.begun else shape.opening()
                for choice in [*([opening] if opening else []), *shape.piece(piece)]:
                    await stream.tell({**head.object(kind, [choice]), **rest})
        if usage:
            await stream.tell({**head.object(kind, []), "usage": writing.usage.object()})
        await stream.end()


def _fingerprint(served: Served) -> str:
    """The same where the same graph and weights answer: seeds hold for one fingerprint."""
    files = served.bundle.manifest.files
    digests = "".join(files[name].sha256 for name in sorted(files) if name.startswith(GRAPH_NAME))
    return "fp_" + hashlib.sha256(digests.encode()).hexdigest()[:12]
