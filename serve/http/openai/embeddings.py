"""POST /v1/embeddings, as OpenAI's clients ask it: texts in, vectors out, as numbers or as base64 of float32.

Beside OpenAI's members there is `prompt_name`, as text-embeddings-inference has it: what stands before the texts.
Source: OpenAI's API reference, "Create embeddings".
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.errors import InputError
from edgetune.serve.http.access import Visit, visit_of
from edgetune.serve.http.answering import Answering
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.openai.faults import Unfit
from edgetune.serve.http.reply import Reply, json_reply
from edgetune.serve.json_types import JsonObject

if TYPE_CHECKING:
    from edgetune.serve.heads.embedding import EmbeddingHead
    from edgetune.serve.http.served import Served

EXAMPLE = '{"model": "...", "input": ["my card has not arrived"]}'


class EmbeddingsRequest(msgspec.Struct):
    """The body; members that are not named here, change nothing; `user` is a key of a split."""

    input: str | list[str | int | list[int]]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    prompt_name: str | None = None
    user: str | None = None


_DECODER = msgspec.json.Decoder(EmbeddingsRequest)


def read_request(body: bytes) -> tuple[EmbeddingsRequest, list[str]]:
    """Understand a body: the request and its texts.

    Raises:
        Unfit: 400, telling what would have been understood.
    """
    try:
        request = _DECODER.decode(body)
    except NOT_JSON as error:
        raise Unfit(f"The body is not understood: {error}.", expected=EXAMPLE) from error
    given = [request.input] if isinstance(request.input, str) else request.input
    if not given:
        raise Unfit("input is empty.", expected="a text, or a list of texts", param="input")
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise Unfit("input holds token ids, which are those of a tokenizer.", expected="texts", param="input")
    return request, texts


class EmbeddingsRoute:
    """The route, as a bare ASGI application."""

    def __init__(self, answering: Answering, limits: Limits) -> None:
        self._answering, self._limits = answering, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = visit_of(scope)
        visit.route = "embeddings"
        reply = await self._limits.attend(scope, receive, partial(self._reply, visit))
        await reply.send(send)

    async def _reply(self, visit: Visit, body: bytes) -> Reply:
        request, texts = read_request(body)
        with self._answering.repository.lease(visit.asked(request.model, request.user or "") or "") as served:
            visit.model, visit.texts = served.name, len(texts)
            head = _embedding_head(served)
            try:
                prompted = head.prompted(texts, request.prompt_name)
                head.shortened(np.zeros((0, head.width), dtype=np.float32), request.dimensions)
            except InputError as error:
                param = "prompt_name" if "prompt" in error.found else "dimensions"
                raise Unfit(error.found, expected=error.expected, action=error.action, param=param) from error
            answers = await self._answering.inputs(served, prompted)
            vectors = head.shortened(head.decide(answers.outputs.logits), request.dimensions)
            return json_reply(_answer(served.name, vectors, answers.tokens, request.encoding_format))


def _embedding_head(served: Served) -> EmbeddingHead:
    """The head of a model of vectors.

    Raises:
        Unfit: 400; the model answers otherwise.
    """
    from edgetune.serve.heads.embedding import EmbeddingHead

    head = None if served.generates else served.predictor.head
    if not isinstance(head, EmbeddingHead):
        raise Unfit(
            f"The model {served.name!r} gives no vectors: its task is {served.bundle.manifest.task}.",
            expected="a model of the task feature-extraction",
            param="model",
        )
    return head


def _answer(model: str, vectors: NDArray[np.float32], tokens: int, encoding: str) -> JsonObject:
    data: Sequence[object] = (
        [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in vectors]
        if encoding == "base64"
        else [list(map(float, row)) for row in vectors]
    )
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(data)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
