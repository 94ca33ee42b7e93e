"""The protocol's other routes: what the server and its models are, whether they answer, and loading and unloading them.

Source: the Open Inference Protocol, version 2, and the "model repository" extension of KServe and Triton.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.codecs import takes_files
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.http.access import visit_of
from edgetune.serve.http.answering import Answering
from edgetune.serve.http.errors import NotReady, Refused, UnknownModel, error_body, invalid
from edgetune.serve.http.inference import output_tensors
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.repository import Repository
from edgetune.serve.http.served import Served, State
from edgetune.serve.json_types import JsonObject
from edgetune.serve.predictor import Predictor

EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics", "classify")
PLATFORM = "onnxruntime_onnx"  # as Triton calls it


def json_response(value: object, status: int = 200) -> Response:
    """A value as JSON, through msgspec."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class ModelRoutes:
    """The routes that tell of models, and that change which are loaded where keys guard them."""

    def __init__(self, answering: Answering, limits: Limits, *, guarded: bool) -> None:
        self._repository: Repository = answering.repository
        self._limits = limits
        self._guarded = guarded

    async def server(self, request: Request) -> Response:
        """GET /v2"""
        visit_of(request.scope).route = "server"
        return json_response({"name": "edgetune", "version": version("edgetune"), "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        """GET /v2/health/live"""
        visit_of(request.scope).route = "live"
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """GET /v2/health/ready: 200 once every model answers, else 503; in both cases what each model runs on."""
        visit_of(request.scope).route = "ready"
        ready = self._repository.ready
        models = {name: self._state(name) for name in self._repository.states()}
        return json_response({"ready": ready, "models": models}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        """GET /v2/models/{name} and its versions"""
        visit_of(request.scope).route = "model"
        with self._lease(request) as served:
            return json_response(_metadata(served))

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/{name}/ready and its versions'"""
        visit_of(request.scope).route = "model_ready"
        name = request.path_params["name"]
        try:
            with self._lease(request) as served:
                return json_response({"name": served.name, "ready": True})
        except NotReady as error:
            reason = msgspec.json.decode(error_body(error))["error"]
            return json_response({"name": name, "ready": False, "error": reason}, 503)

    async def index(self, request: Request) -> Response:
        """POST /v2/repository/index"""
        visit_of(request.scope).route = "index"
        body = await self._body(request)
        return json_response(
            [
                {"name": name, "version": served_version, "state": state.value, "reason": reason}
                for name, (state, served_version, reason) in self._repository.states().items()
                if state is State.READY or not body.ready
            ]
        )

    async def load(self, request: Request) -> Response:
        """POST /v2/repository/models/{name}/load"""
        await self._change(request, "load")
        await self._repository.load(request.path_params["name"])
        return json_response({})

    async def unload(self, request: Request) -> Response:
        """POST /v2/repository/models/{name}/unload"""
        await self._change(request, "unload")
        await self._repository.unload(request.path_params["name"])
        return json_response({})

    async def _change(self, request: Request, what: str) -> None:
        visit_of(request.scope).route = what
        if not self._guarded:
            raise Refused(
                403,
                "This server has no keys, so nobody may change which models are loaded.",
                action="start it with --api-key-file and ask with a key",
            )
        await self._body(request)
        name = request.path_params["name"]
        if name not in self._repository.states():
            raise UnknownModel(f"There is no model {name[:140]!r}.", expected="a name of /v2/repository/index")

    async def _body(self, request: Request) -> _RepositoryRequest:
        body = await self._limits.read(request.scope, request.receive)
        try:
            return msgspec.json.decode(body or b"{}", type=_RepositoryRequest)
        except NOT_JSON as error:
            raise invalid(f"The body is no repository request: {error}.", expected='{}, or {"ready": true}') from error

    def _state(self, name: str) -> JsonObject:
        state, served_version, reason = self._repository.states()[name]
        providers: list[str] = []
        with contextlib.suppress(EdgetuneError), self._repository.lease(name) as served:
            providers = list(served.answerer.providers)
        return {"state": state.value, "version": served_version, "providers": providers, "reason": reason}

    def _lease(self, request: Request) -> contextlib.AbstractContextManager[Served]:
        path = request.path_params
        return self._repository.lease(path["name"], path.get("version"))


class _RepositoryRequest(msgspec.Struct):
    """The body of the repository's routes: `ready` asks the index for models that answer alone."""

    ready: bool = False
    parameters: dict[str, Any] | None = None


def _metadata(served: Served) -> JsonObject:
    """What a model is; a model that writes is not asked by this protocol, so it tells of no tensors."""
    manifest = served.bundle.manifest
    inputs, outputs = ([], []) if served.generates else _tensors(served.predictor)
    return {
        "name": served.name,
        "versions": [served.version],
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {
            "bundle": manifest.name,
            "task": manifest.task,
            "labels": manifest.labels,
            "max_tokens": manifest.max_tokens,
            **_chosen(served),
            "providers": list(served.answerer.providers),
        },
    }


def _chosen(served: Served) -> dict[str, str]:
    """The scheme of the graph that answers, and why it was taken where there are several."""
    if served.generates:
        return {"scheme": served.bundle.manifest.scheme}
    return {"scheme": served.predictor.variant, "scheme_reason": served.predictor.variant_reason}


def _tensors(predictor: Predictor) -> tuple[list[JsonObject], list[JsonObject]]:
    """The tensors of a model: its texts, or the graph's own inputs together; and all outputs there are."""
    takes_pictures = takes_files(predictor.bundle.manifest.codec)
    texts = {"content_type": "base64"} if takes_pictures else {"instead_of": "the ids"}
    ids = {"instead_of": " and ".join(predictor.codec.parts)}
    inputs: list[dict[str, Any]] = [
        {"name": part, "datatype": "BYTES", "shape": [-1], "parameters": texts} for part in predictor.codec.parts
    ]
    graph_inputs = () if takes_pictures else predictor.bundle.manifest.inputs
    for spec in graph_inputs:
        inputs.append({"name": spec.name, "datatype": "INT64", "shape": [-1, -1], "parameters": ids})
    outputs = [
        {
            "name": name,
            "datatype": output.datatype,
            "shape": [-1] if output.columns is None else [-1, output.columns],
        }
        for name, output in output_tensors(predictor.head, cascade=predictor.small is not None).items()
    ]
    return inputs, outputs
