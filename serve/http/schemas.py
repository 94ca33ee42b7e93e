"""The JSON schemas of what the server takes and gives, as its OpenAPI description names them.

Written by hand beside the decoders: a schema says only what its decoder holds to, so that a fuzzing client finds any
difference between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgetune.serve.http.feedback import MOST_LABEL, MOST_TEXT
from edgetune.serve.http.inference import MOST_INPUTS
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.json_types import JsonObject

# Something besides white space (Python's, which counts four separators more than the regular expression), and no NUL.
TEXT_PATTERN = "^[^\\u0000]*[^\\s\\u0000\\u001c-\\u001f\\u0085][^\\u0000]*$"


@dataclass(frozen=True)
class Interfaces:
    """What the loaded models take and give together.

    Attributes:
        parts: names of the texts of an input, one tuple a kind of input.
        answers: JSON Schemas of the predictions, one a kind of head.
        outputs: names of the protocol's outputs.
    """

    parts: frozenset[tuple[str, ...]]
    answers: tuple[Mapping[str, object], ...]
    outputs: tuple[str, ...]


def ref(name: str) -> JsonObject:
    """The place of a schema in the description."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: str, properties: JsonObject) -> JsonObject:
    return {"type": "object", "properties": properties, "required": required.split()}


_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_PARAMETERS = {"type": ["object", "null"]}
_NAMES = {"type": "array", "items": _TEXT}


def schemas(settings: ServerSettings, interfaces: Interfaces) -> JsonObject:
    """All schemas by name, with the limits of these settings."""
    tensor = {"name": _TEXT, "datatype": _TEXT, "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}}}
    return {
        **_questions(settings, interfaces),
        "Answer": _object("model predictions", {"model": _TEXT, "predictions": _array(ref("Prediction"))}),
        "Prediction": {"anyOf": list(interfaces.answers)} if interfaces.answers else {"type": "object"},
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
        "ModelConfig": _object(
            "name platform backend max_batch_size input output",
            {
                **dict.fromkeys(("name", "platform", "backend"), _TEXT),
                "max_batch_size": {"type": "integer", "minimum": 1},
                **{name: _array(_object("name data_type dims", {})) for name in ("input", "output")},
            },
        ),
        "ModelStatistics": _object(
            "model_stats",
            {"model_stats": _array(_object("name version inference_count execution_count inference_stats", {}))},
        ),
        "Index": _array(
            _object("name version state reason", {"name": _TEXT, "version": _TEXT, "state": _STATE, "reason": _TEXT})
        ),
        "Done": {"type": "object"},
        "FeedbackRequest": _feedback_request(),
        "FeedbackKept": _object("request_id known", {"request_id": _TEXT, "known": _FLAG}),
        "Error": _object("error", {"error": _TEXT}),
    }


_STATE = {"type": "string", "enum": ["LOADING", "READY", "UNAVAILABLE"]}


def _array(items: JsonObject) -> JsonObject:
    return {"type": "array", "items": items}


def _questions(settings: ServerSettings, interfaces: Interfaces) -> JsonObject:
    """What a client may send. Of a tensor, JSON Schema can say all but that its data is as large as its shape says."""
    text = {"type": "string", "minLength": 1, "pattern": TEXT_PATTERN}
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
    output = _object("name", {"name": {"type": "string", "enum": list(interfaces.outputs)}, "parameters": _PARAMETERS})
    return {
        "ClassifyRequest": _classify_request(text, settings.max_texts, interfaces.parts),
        "InferenceRequest": _object(
            "inputs",
            {
                "id": {"type": ["string", "null"]},
                "parameters": _PARAMETERS,
                "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": MOST_INPUTS},
                "outputs": {"type": ["array", "null"], "items": output},
            },
        )
        | {
            "examples": [
                {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["where is my card"]}]}
            ]
        },
        "RepositoryRequest": {"type": "object", "properties": {"ready": _FLAG, "parameters": _PARAMETERS}},
    }


def _feedback_request() -> JsonObject:
    """A body of /v1/feedback: an answer, and one judgement of it."""
    number = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
    filled = {"type": "string", "minLength": 1, "maxLength": MOST_LABEL, "pattern": r"[^\s\u001c-\u001f\u0085]"}
    judgements: dict[str, JsonObject] = {
        "vote": {"type": "string", "enum": ["up", "down"]},
        "choice": number,
        "label": filled,
        "text": {"type": "string", "maxLength": MOST_TEXT},
    }
    answer = {
        "request_id": {"type": "string", "minLength": 1, "maxLength": 128},
        "index": number,
        "person": {"type": "string", "maxLength": 128},
    }
    forms = []
    for name, schema in judgements.items():
        over = {"over": number} if name == "choice" else {}
        forms.append(
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {**answer, name: schema, **over},
                "required": ["request_id", name],
            }
        )
    return {
        "oneOf": forms,
        "examples": [{"request_id": "a1", "vote": "up"}, {"request_id": "a1", "label": "card_arrival"}],
    }


def _classify_request(text: JsonObject, most: int, kinds: frozenset[tuple[str, ...]]) -> JsonObject:
    """A body of /v1/classify: one input by its parts, or several, of a kind that a loaded model takes."""
    other = {
        **{name: {"type": "null"} for name in ("text", "text_pair", "texts", "image", "images")},
        "top": {"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1},
        "model": {"type": ["string", "null"]},
    }
    exact = {"type": "object", "additionalProperties": False}
    forms, inputs = [], []
    for parts in sorted(kinds):
        forms.append({**exact, "properties": {**other, **dict.fromkeys(parts, text)}, "required": list(parts)})
        pair = {"type": "array", "items": text, "minItems": len(parts), "maxItems": len(parts)}
        inputs.append(text if len(parts) == 1 else pair)
    texts = {"type": "array", "items": {"anyOf": inputs}, "minItems": 1, "maxItems": most}
    examples: list[JsonObject] = [{"text": "my card has not arrived"}, {"texts": ["where is my refund"], "top": 3}]
    if ("text",) not in kinds:
        examples = [{"text": "my card has not arrived", "text_pair": "the card is late"}]
    return {
        "oneOf": [*forms, {**exact, "properties": {**other, "texts": texts}, "required": ["texts"]}],
        "examples": examples,
    }
