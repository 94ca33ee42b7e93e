"""The server's application: its routes, and what every request passes on its way to them.

The two routes that answer stand first and are bare ASGI; the others are asked seldom and written for reading.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgetune.serve.drift import FIGURES
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.heads import OutputTensor
from edgetune.serve.http.access import Access, visit_of
from edgetune.serve.http.answering import Answering
from edgetune.serve.http.classify import EXTRACT_PATH, ClassifyRoute
from edgetune.serve.http.errors import Refused
from edgetune.serve.http.feedback import FEEDBACK_PATH, FeedbackRoute, Recorder
from edgetune.serve.http.inference import ID_OUTPUTS, InferRoute, output_tensors
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.metrics import CONTENT_TYPE, Gauge, Metrics
from edgetune.serve.http.models import ModelRoutes, json_response
from edgetune.serve.http.openai.embeddings import EmbeddingsRoute
from edgetune.serve.http.openai.faults import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    MODELS_PATH,
    Unfit,
    refusal,
)
from edgetune.serve.http.openai.generating import Generating
from edgetune.serve.http.openai.listing import ListingRoutes
from edgetune.serve.http.openai.routes import GenerationRoute, chat_question, completion_question
from edgetune.serve.http.openapi import docs_page, openapi
from edgetune.serve.http.page import PageRoutes, html_response
from edgetune.serve.http.repository import Repository
from edgetune.serve.http.schemas import Interfaces
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.http.shadow import Shadow
from edgetune.serve.http.triton import TritonRoutes
from edgetune.serve.http.try_form import SCRIPT_PATH, script
from edgetune.serve.json_types import JsonObject

if TYPE_CHECKING:
    from edgetune.serve.http.keys import Keys


def create_app(
    repository: Repository,
    settings: ServerSettings,
    *,
    keys: Keys | None = None,
    metrics: Metrics | None = None,
) -> Starlette:
    """The application that answers with the models of `repository`.

    Args:
        repository: who starts and closes it is the caller.
        settings: the limits that hold here.
        keys: who may ask; None lets everybody, and nobody change what is loaded.
        metrics: where to count; its `observe_run` is the repository's observer.
    """
    metrics = metrics or Metrics()
    limits = Limits(settings)
    recorder = Recorder.open(settings)
    answering = Answering(repository, settings, metrics, recorder)
    generating = Generating(repository, settings, metrics, recorder)
    metrics.watch(lambda: _gauges(repository, limits, recorder))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        if recorder is not None:
            recorder.close()

    app = Starlette(
        routes=[
            *_routes(answering, limits, settings, guarded=keys is not None),
            *_generation_routes(generating, limits),
            Route(FEEDBACK_PATH, FeedbackRoute(recorder, limits), methods=["POST"]),
        ],
        middleware=[
            Middleware(Access, limits=limits, metrics=metrics, keys=keys, settings=settings),
            *_shadows(settings, limits, metrics),
        ],
        exception_handlers={HTTPException: _no_route, Exception: _fault},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def _shadows(settings: ServerSettings, limits: Limits, metrics: Metrics) -> list[Middleware]:
    if not settings.shadow:
        return []
    return [Middleware(Shadow, model=settings.shadow, limits=limits, metrics=metrics, log=settings.shadow_log)]


def _routes(answering: Answering, limits: Limits, settings: ServerSettings, *, guarded: bool) -> list[Route]:
    models = ModelRoutes(answering, limits, guarded=guarded)
    pages = PageRoutes(answering.repository, votes=answering.recorder is not None)
    triton = TritonRoutes(answering)
    infer = InferRoute(answering, limits)

    def description() -> JsonObject:
        return openapi(settings, interfaces_of(answering.repository), guarded=guarded)

    async def describe(request: Request) -> Response:
        visit_of(request.scope).route = "openapi"
        return json_response(description())

    async def docs(request: Request) -> Response:
        visit_of(request.scope).route = "docs"
        return html_response(docs_page(description()))

    async def scrape(request: Request) -> Response:
        visit_of(request.scope).route = "metrics"
        return Response(answering.metrics.page(), headers={"content-type": CONTENT_TYPE})

    one, repository = "/v2/models/{name}", "/v2/repository"
    return [
        Route(one + "/infer", infer, methods=["POST"]),
        Route("/v1/classify", ClassifyRoute(answering, limits), methods=["POST"]),
        Route(EMBEDDINGS_PATH, EmbeddingsRoute(answering, limits), methods=["POST"]),
        Route(EXTRACT_PATH, ClassifyRoute(answering, limits, "extract"), methods=["POST"]),
        Route(one + "/versions/{version}/infer", infer, methods=["POST"]),
        Route("/v2", models.server),
        Route("/v2/health/live", models.live),
        Route("/v2/health/ready", models.ready),
        Route("/v2/models/stats", triton.all_statistics),
        Route(one, models.model),
        Route(one + "/versions/{version}", models.model),
        Route(one + "/config", triton.config),
        Route(one + "/versions/{version}/config", triton.config),
        Route(one + "/stats", triton.statistics),
        Route(one + "/versions/{version}/stats", triton.statistics),
        Route(one + "/ready", models.model_ready),
        Route(one + "/versions/{version}/ready", models.model_ready),
        Route(repository + "/index", models.index, methods=["POST"]),
        Route(repository + "/models/{name}/load", models.load, methods=["POST"]),
        Route(repository + "/models/{name}/unload", models.unload, methods=["POST"]),
        Route("/metrics", scrape),
        Route("/openapi.json", describe),
        Route("/docs", docs),
        Route("/", pages.home),
        Route(SCRIPT_PATH, script),
        Route("/models/{name}/report", pages.report),
    ]


def _generation_routes(generating: Generating, limits: Limits) -> list[Route]:
    listing = ListingRoutes(generating)
    chat = GenerationRoute("chat", generating, limits, chat_question)
    completions = GenerationRoute("completions", generating, limits, completion_question)
    return [
        Route(CHAT_PATH, chat, methods=["POST"]),
        Route(COMPLETIONS_PATH, completions, methods=["POST"]),
        Route(MODELS_PATH, listing.models),
        Route(MODELS_PATH + "/{name}", listing.model),
    ]


def interfaces_of(repository: Repository) -> Interfaces:
    """What the models that answer now take and give; of single texts where there are none."""
    parts: set[tuple[str, ...]] = set()
    answers: dict[str, Mapping[str, object]] = {}
    outputs: dict[str, OutputTensor] = {}
    for name in repository.states():
        with contextlib.suppress(EdgetuneError), repository.lease(name) as served:
            if not served.generates:
                head = served.predictor.head
                parts.add(served.predictor.codec.parts)
                kind = head.spec.kind  # the answers of several tasks have members of their own
                answers[kind if head.spec.output else f"{kind} {name}"] = head.schema
                outputs |= output_tensors(head, cascade=served.predictor.small is not None)
    return Interfaces(frozenset(parts or {("text",)}), tuple(answers.values()), tuple(outputs or ID_OUTPUTS))


def _gauges(repository: Repository, limits: Limits, recorder: Recorder | None) -> Iterable[Gauge]:
    waiting, ready = {}, {}
    drift: dict[str, dict[str, float]] = {name: {} for name in FIGURES}
    for name in repository.states():
        try:
            with repository.lease(name) as served:
                waiting[name], ready[name] = float(served.answerer.waiting), 1.0
                watch = None if served.generates else served.classifier.drift
                for figure, index in ({} if watch is None else watch.index).items():
                    drift[figure][name] = index
        except EdgetuneError:
            waiting[name], ready[name] = 0.0, 0.0
    dropped = {} if recorder is None else {"": float(recorder.store.dropped)}
    return [
        ("edgetune_queue_texts", "Texts or prompts that wait for the graph now.", waiting),
        ("edgetune_model_ready", "1 where the model answers.", ready),
        ("edgetune_requests_running", "Requests being worked on now.", {"": float(limits.running)}),
        ("edgetune_body_bytes", "Bytes of the bodies that are held now.", {"": float(limits.body_bytes)}),
        ("edgetune_feedback_dropped", "Answers and votes that could not be kept.", dropped),
        *(
            (
                f"edgetune_drift_{figure}",
                f"Population stability index of the {words} against the test part's.",
                drift[figure],
            )
            for figure, words in FIGURES.items()
        ),
    ]


async def _no_route(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, no such route and no such method, in the protocol's form."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    refused: Refused
    if status == 404:
        refused = Unfit(
            "There is no such route.", action="see /docs for those there are", status=404, code="unknown_url"
        )
    else:
        refused = Refused(status, f"{request.method} is not for this route.", expected=headers.get("Allow", ""))
    _, body = refusal(request.scope["path"], refused)
    return Response(body, status, headers, media_type="application/json")


async def _fault(request: Request, error: Exception) -> Response:
    """A bug of ours: the traceback goes to the log, the client is told no more than that, and its request's id."""
    request_id = visit_of(request.scope).request_id
    refused = Refused(500, f"The server failed at request {request_id}.", action="report it with the server's log")
    headers = {"x-request-id": request_id}
    _, body = refusal(request.scope["path"], refused)
    return Response(body, 500, headers, media_type="application/json")
