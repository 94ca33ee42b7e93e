"""POST /v1/classify, the route for people: {"text": "..."} in, {"predictions": [...]} out.

What a prediction is made of, the model's head says; for a model of pairs there is {"text": "...", "text_pair": "..."},
for one of pictures {"image": "<base64>"}, a file as it is, or a form of files. `/v1/extract` is the same for models
that find entities, and refuses all others.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from functools import partial
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.codecs import Input, takes_files
from edgetune.serve.heads import PER_TOKEN
from edgetune.serve.http.access import Visit, visit_of
from edgetune.serve.http.answering import Answering
from edgetune.serve.http.errors import Refused, invalid, unanswerable
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.picture_body import TYPES, read_pictures
from edgetune.serve.http.reply import Reply, json_reply
from edgetune.serve.http.served import State

EXAMPLE = '{"text": "my card has not arrived"}'
EXTRACT_PATH = "/v1/extract"
MEMBERS = ("text", "text_pair", "texts", "image", "images", "top", "model")


class ClassifyRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body: one input or several, how many answers of each, and of which model where several are served."""

    text: str | None = None
    text_pair: str | None = None
    texts: list[str | list[str]] | None = None
    image: str | None = None
    images: list[str] | None = None
    top: int | float | None = None
    model: str | None = None


_DECODER = msgspec.json.Decoder(ClassifyRequest)


def read_request(body: bytes) -> tuple[ClassifyRequest, Sequence[Input]]:
    """Understand a request's body: the request and its inputs.

    Raises:
        Refused: 400, telling what would have been understood.
    """
    try:
        request = _DECODER.decode(body)
    except NOT_JSON as error:
        raise _not_understood(body, error) from error
    if request.image is not None or request.images is not None:
        return request, _pictures(request)
    if (request.text is None) == (request.texts is None):
        both = "both text and texts" if request.text is not None else "neither text nor texts"
        raise invalid(f"The body has {both}.", expected=f'{EXAMPLE} or {{"texts": ["...", "..."]}}')
    if request.text_pair is not None and request.text is None:
        raise invalid("The body has text_pair without text.", expected='{"text": "...", "text_pair": "..."}')
    _check_top(request)
    if request.texts is not None:
        return request, request.texts
    text = request.text or ""
    return request, [text if request.text_pair is None else (text, request.text_pair)]


def _pictures(request: ClassifyRequest) -> Sequence[Input]:
    """The pictures of a body, each in base64.

    Raises:
        Refused: 400; it holds texts as well, or pictures in two ways.
    """
    given = [name for name in MEMBERS[:5] if getattr(request, name) is not None]
    if len(given) > 1:
        raise invalid(f"The body has {' and '.join(given)}.", expected="image, images, text or texts")
    _check_top(request)
    return request.images if request.images is not None else [request.image or ""]


def _check_top(request: ClassifyRequest) -> None:
    if request.top is not None and not (1 <= request.top < 2**31 and request.top == int(request.top)):
        raise invalid(f"top is {request.top}.", expected="a whole number, 1 or more")


def _of_query(scope: Scope) -> ClassifyRequest:
    """What the address says beside a body of pictures: ?model=NAME&top=3.

    Raises:
        Refused: 400; another key, or no number.
    """
    values = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    strangers = [name for name in values if name not in ("model", "top")]
    if strangers:
        raise invalid(f"There is no key {strangers[0][:80]!r}.", expected="model or top")
    top = values.get("top")
    if top is not None and not (top.isascii() and top.isdigit() and len(top) < 10):
        raise invalid(f"top is {top[:80]!r}.", expected="a whole number, 1 or more")
    request = ClassifyRequest(top=None if top is None else int(top), model=values.get("model"))
    _check_top(request)
    return request


def _not_understood(body: bytes, error: Exception) -> Refused:
    """The refusal of a body, with the likely mistake: no JSON, no object, or a member that is not known."""
    if not body.strip():
        return invalid("The body is empty.", expected=EXAMPLE)
    try:
        value = msgspec.json.decode(body)
    except NOT_JSON:
        return invalid(f"The body is no JSON: {error}.", expected=EXAMPLE)
    if not isinstance(value, dict):
        return invalid(f"The body is no object, but of type {type(value).__name__}.", expected=EXAMPLE)
    strangers = [name for name in value if name not in MEMBERS]
    if strangers:
        near = difflib.get_close_matches(strangers[0][:80], MEMBERS, 1)
        return invalid(
            f"There is no member {strangers[0][:80]!r}.",
            expected="text, text_pair, texts, image, images, top or model",
            action=f"did you mean {near[0]!r}?" if near else "",
        )
    return invalid(f"{error}.", expected=EXAMPLE)


class ClassifyRoute:
    """The route, as a bare ASGI application; `name` is classify, or extract for models that find entities alone."""

    def __init__(self, answering: Answering, limits: Limits, name: str = "classify") -> None:
        self._answering = answering
        self._limits = limits
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = visit_of(scope)
        visit.route = self._name
        work = partial(self._answer, scope, visit)
        reply = await self._limits.attend(scope, receive, work, types=TYPES)
        await reply.send(send)

    async def _answer(self, scope: Scope, visit: Visit, body: bytes) -> Reply:
        begun = time.perf_counter()
        files = read_pictures(scope, body)
        request, inputs = (_of_query(scope), files) if files is not None else read_request(body)
        seconds = time.perf_counter() - begun
        with self._answering.repository.lease(self._model(visit.asked(request.model))) as served:
            visit.model, visit.texts = served.name, len(inputs)
            if self._name == "extract" and served.predictor.head.spec.kind not in PER_TOKEN:
                raise unanswerable(
                    f"The model {served.name} finds no entities: its answers are of the kind "
                    f"{served.predictor.head.spec.kind!r}.",
                    expected="a model of the task token-classification",
                    action="ask it by POST /v1/classify",
                )
            self._answering.metrics.observe_stage(served.name, "parse", seconds)
            if files is not None and not takes_files(served.bundle.manifest.codec):
                raise invalid(f"The model {served.name!r} answers no pictures.", expected=f"JSON, such as {EXAMPLE}")
            answers = await self._answering.inputs(served, inputs)
            predictor, top = served.predictor, None if request.top is None else int(request.top)  # JSON may say 3.0
            given = predictor.answer(answers.outputs, answers.truncated)
            predictions = [predictor.head.as_json(each, top) for each in given]
            if self._answering.recorder is not None:
                self._answering.recorder.keep_predictions(visit, served, inputs, predictions)
            return json_reply({"model": served.name, "predictions": predictions})

    def _model(self, wished: str | None) -> str:
        if wished is not None:
            return wished
        states = self._answering.repository.states()
        names = [name for name, (state, _, _) in states.items() if state is State.READY] or list(states)
        names = [name for name in names if name != self._answering.settings.shadow]  # which answers nobody
        if len(names) != 1:
            raise invalid(
                f"There are {len(names)} models here, and the body names none.",
                expected='"model": one of ' + ", ".join(sorted(names)),
            )
        return names[0]
