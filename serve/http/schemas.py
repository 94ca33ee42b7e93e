"""The JSON schemas of what the server takes and gives, as its OpenAPI description names them.

Written by hand beside the decoders: a schema says only what its decoder holds to, so that a fuzzing client finds any
difference between them.
"""

from __future__ import annotations

from typing import Any

from edgetune.serve.http.inference import MOST_INPUTS, OUTPUTS
from edgetune.serve.http.settings import ServerSettings

JsonObject = dict[str, Any]

# Something besides white space (Python's, which counts four separators more than the regular expression), and no NUL.
TEXT_PATTERN = "^[^\\u0000]*[^\\s\\u0000\\u001c-\\u001f\\u0085][^\\u0000]*$"


def ref(name: str) -> JsonObject:
    """The place of a schema in the description."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: str, properties: JsonObject) -> JsonObject:
    return {"type": "object", "properties": properties, "required": required.split()}


_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_SCORE = {"type": "number", "minimum": 0, "maximum": 1}
_PARAMETERS = {"type": ["object", "null"]}
_NAMES = {"type": "array", "items": _TEXT}


def schemas(settings: ServerSettings) -> JsonObject:
    """All schemas by name, with the limits of these settings."""
    tensor = {"name": _TEXT, "datatype": _TEXT, "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}}}
    return {
        **_questions(settings),
        "Answer": _object("model predictions", {"model": _TEXT, "predictions": _array(ref("Prediction"))}),
        "Prediction": _object(
            "label score truncated",
            {
                "label": _TEXT,
                "score": _SCORE,
                "truncated": _FLAG,
                "scores": {"type": "object", "additionalProperties": _SCORE},
            },
        ),
        "InferenceAnswer": _object(
            "model_name model_version outputs",
            {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "id": _TEXT,
                "outputs": _array(_object("name datatype shape", {**tensor, "data": {"type": "array"}})),
            },
        ),
        "Server": _object("name version extensions", {"name": _TEXT, "version": _TEXT, "extensions": _NAMES}),
        "Live": _object("live", {"live": _FLAG}),
        "Ready": _object(
            "ready models",
            {"ready": _FLAG, "models": {"type": "object", "additionalProperties": ref("ModelState")}},
        ),
        "ModelState": _object(
            "state version providers reason",
            {"state": _STATE, "version": _TEXT, "providers": _NAMES, "reason": _TEXT},
        ),
        "ModelReady": _object("name ready", {"name": _TEXT, "ready": _FLAG, "error": _TEXT}),
        "Model": _object(
            "name versions platform inputs outputs",
            {
                "name": _TEXT,
                "versions": _NAMES,
                "platform": _TEXT,
                "inputs": _array(_object("name datatype shape", tensor)),
                "outputs": _array(_object("name datatype shape", tensor)),
                "parameters": {"type": "object"},
            },
        ),
        "Index": _array(
            _object("name version state reason", {"name": _TEXT, "version": _TEXT, "state": _STATE, "reason": _TEXT})
        ),
        "Done": {"type": "object"},
        "Error": _object("error", {"error": _TEXT}),
    }


_STATE = {"type": "string", "enum": ["LOADING", "READY", "UNAVAILABLE"]}


def _array(items: JsonObject) -> JsonObject:
    return {"type": "array", "items": items}


def _questions(settings: ServerSettings) -> JsonObject:
    """What a client may send. Of a tensor, JSON Schema can say all but that its data is as large as its shape says."""
    text = {"type": "string", "minLength": 1, "pattern": TEXT_PATTERN}
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": settings.max_texts}
    either = {
        "text": {"type": "null"},
        "texts": {"type": "null"},
        "top": {"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1},
        "model": {"type": ["string", "null"]},
    }
    one = {"type": "object", "additionalProperties": False}
    tensor = _object(
        "name shape datatype",
        {
            "name": _TEXT,
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2},
            "datatype": {"type": "string", "enum": ["BYTES", "INT64", "INT32"]},
            "data": {"type": ["array", "null"]},
            "parameters": _PARAMETERS,
        },
    )
    wanted = _object("name", {"name": {"type": "string", "enum": list(OUTPUTS)}, "parameters": _PARAMETERS})
    return {
        "Wish": {
            "oneOf": [
                {**one, "properties": {**either, "text": text}, "required": ["text"]},
                {**one, "properties": {**either, "texts": texts}, "required": ["texts"]},
            ],
            "examples": [{"text": "my card has not arrived"}, {"texts": ["where is my refund"], "top": 3}],
        },
        "InferenceRequest": _object(
            "inputs",
            {
                "id": {"type": ["string", "null"]},
                "parameters": _PARAMETERS,
                "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": MOST_INPUTS},
                "outputs": {"type": ["array", "null"], "items": wanted},
            },
        )
        | {
            "examples": [
                {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["where is my card"]}]}
            ]
        },
        "RepositoryRequest": {"type": "object", "properties": {"ready": _FLAG, "parameters": _PARAMETERS}},
    }
