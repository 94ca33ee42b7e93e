"""What Triton's clients and its perf_analyzer ask beside the protocol: a model's configuration and its statistics.

Source: Triton's model configuration and statistics extensions
(github.com/triton-inference-server/server/tree/main/docs/protocol).
"""

from __future__ import annotations

import contextlib

from starlette.requests import Request
from starlette.responses import Response

from edgetune.serve.codecs import takes_files
from edgetune.serve.http.access import visit_of
from edgetune.serve.http.answering import Answering
from edgetune.serve.http.inference import output_tensors
from edgetune.serve.http.metrics import Counts
from edgetune.serve.http.models import PLATFORM, json_response
from edgetune.serve.http.served import Served, State
from edgetune.serve.json_types import JsonObject


class TritonRoutes:
    """The two routes of each model, and the statistics of all."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def config(self, request: Request) -> Response:
        """GET /v2/models/{name}/config and its versions'"""
        visit_of(request.scope).route = "config"
        with self._lease(request) as served:
            return json_response(model_config(served, self._answering.settings.max_texts))

    async def statistics(self, request: Request) -> Response:
        """GET /v2/models/{name}/stats and its versions'"""
        visit_of(request.scope).route = "stats"
        with self._lease(request) as served:
            counts = self._answering.metrics.counts(served.name)
            return json_response({"model_stats": [statistics(served.name, served.version, counts)]})

    async def all_statistics(self, request: Request) -> Response:
        """GET /v2/models/stats: of every model that answers"""
        visit_of(request.scope).route = "stats"
        ready = {
            name: version
            for name, (state, version, _) in self._answering.repository.states().items()
            if state is State.READY
        }
        counts = self._answering.metrics.counts
        return json_response(
            {"model_stats": [statistics(name, version, counts(name)) for name, version in ready.items()]}
        )

    def _lease(self, request: Request) -> contextlib.AbstractContextManager[Served]:
        path = request.path_params
        return self._answering.repository.lease(path["name"], path.get("version"))


def _data_type(datatype: str) -> str:
    """Triton's name of a data type of the protocol."""
    return "TYPE_" + ("STRING" if datatype == "BYTES" else datatype)


def model_config(served: Served, max_texts: int) -> JsonObject:
    """The configuration that Triton would be given for this model; dimensions are those of one input.

    Ids are optional, since a request brings texts or ids; a model that writes is asked by OpenAI's routes alone.
    """
    inputs: list[JsonObject] = []
    outputs: list[JsonObject] = []
    if not served.generates:
        predictor = served.predictor
        inputs = [{"name": part, "data_type": "TYPE_STRING", "dims": []} for part in predictor.codec.parts]
        inputs += [
            {"name": spec.name, "data_type": "TYPE_INT64", "dims": [-1], "optional": True}
            for spec in predictor.bundle.manifest.inputs
            if not takes_files(predictor.bundle.manifest.codec)
        ]
        outputs = [
            {
                "name": name,
                "data_type": _data_type(output.datatype),
                "dims": [] if output.columns is None else [output.columns],
            }
            for name, output in output_tensors(predictor.head, cascade=predictor.small is not None).items()
        ]
    return {
        "name": served.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": max_texts,
        "input": inputs,
        "output": outputs,
        "version_policy": {"latest": {"num_versions": 1}},
        "dynamic_batching": {},
        "model_transaction_policy": {"decoupled": served.generates},
    }


def statistics(name: str, version: str, counts: Counts) -> JsonObject:
    """Counts and nanoseconds since the server started, of all versions and of all workers together."""

    def duration(count: float, seconds: float) -> JsonObject:
        return {"count": int(count), "ns": int(seconds * 1e9)}

    stages = {stage: duration(*counts.stages.get(stage, (0, 0.0))) for stage in ("queue", "tokenize", "run")}
    nothing = duration(0, 0.0)
    return {
        "name": name,
        "version": version,
        "last_inference": 0,
        "inference_count": int(counts.texts),
        "execution_count": int(counts.runs),
        "inference_stats": {
            "success": duration(counts.answered, counts.stages.get("total", (0, 0.0))[1]),
            "fail": duration(counts.refused, 0.0),
            "queue": stages["queue"],
            "compute_input": stages["tokenize"],
            "compute_infer": stages["run"],
            "compute_output": nothing,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [],
    }
