"""GET /v1/models: the models that generate text, as OpenAI's clients list them."""

from __future__ import annotations

import contextlib
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from edgetune.serve.http.access import visit_of
from edgetune.serve.http.models import json_response
from edgetune.serve.http.openai.faults import Unfit
from edgetune.serve.http.openai.generating import Generating, asked_name
from edgetune.serve.http.served import Served
from edgetune.serve.json_types import JsonObject


class ListingRoutes:
    """The routes that tell which models there are."""

    def __init__(self, generating: Generating) -> None:
        self._generating = generating

    async def models(self, request: Request) -> Response:
        """GET /v1/models: those that are ready."""
        visit_of(request.scope).route = "openai_models"
        models = []
        for name in self._generating.names():
            with self._generating.lease(name) as (served, _):
                models += [_model(served, adapter) for adapter in (None, *served.generator.adapters)]
        return json_response({"object": "list", "data": models})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{name}"""
        visit_of(request.scope).route = "openai_model"
        try:
            with self._generating.lease(request.path_params["name"]) as (served, adapter):
                return json_response(_model(served, adapter))
        except Unfit as error:  # one that is not in the list is not there
            raise Unfit(error.found, expected=error.expected, action=error.action, status=404) from error


def _model(served: Served, adapter: str | None) -> JsonObject:
    manifest = served.bundle.manifest
    created = 0
    with contextlib.suppress(ValueError):
        created = int(datetime.fromisoformat(manifest.created).timestamp())
    parent = {} if adapter is None else {"parent": served.name}
    return {
        **parent,
        "id": asked_name(served, adapter),
        "object": "model",
        "created": created,
        "owned_by": "edgetune",
        "context_tokens": manifest.max_tokens,
        "sampling_defaults": served.generator.defaults.values(),
    }
