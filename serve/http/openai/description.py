"""The schemas of these routes for the server's OpenAPI description: bodies from their decoders, answers by hand."""

from __future__ import annotations

import msgspec

from edgetune.serve.http.openai.chat import ChatRequest
from edgetune.serve.http.openai.completions import CompletionRequest
from edgetune.serve.http.openai.embeddings import EmbeddingsRequest
from edgetune.serve.json_types import JsonObject

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_MAYBE_TEXT = {"type": ["string", "null"]}
_FINISH = {"type": ["string", "null"], "enum": ["stop", "length", "tool_calls", None]}
_MAYBE_OBJECT = {"type": ["object", "null"]}


def openai_schemas() -> JsonObject:
    """All schemas by name."""
    _, bodies = msgspec.json.schema_components(
        [ChatRequest, CompletionRequest, EmbeddingsRequest], ref_template="#/components/schemas/{name}"
    )
    model = _object(
        {"id": _TEXT, "object": _TEXT, "created": _COUNT, "owned_by": _TEXT, "context_tokens": _COUNT}
        | {"sampling_defaults": {"type": "object", "additionalProperties": {"type": "number"}}},
    )
    usage = _object({"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT})
    message = _object({"role": _TEXT, "content": _MAYBE_TEXT, "refusal": _MAYBE_TEXT})
    error = _object({"message": _TEXT, "type": _TEXT, "param": _MAYBE_TEXT, "code": _MAYBE_TEXT})
    return {
        **bodies,
        "ChatAnswer": _answer({"message": message}, usage),
        "CompletionAnswer": _answer({"text": _TEXT}, usage),
        "EmbeddingsAnswer": _embeddings(),
        "OpenAIModel": model,
        "OpenAIModels": _object({"object": _TEXT, "data": {"type": "array", "items": _ref("OpenAIModel")}}),
        "OpenAIError": _object({"error": error}),
    }


def _embeddings() -> JsonObject:
    vector = {"anyOf": [{"type": "array", "items": {"type": "number"}}, _TEXT]}
    row = _object({"object": _TEXT, "index": _COUNT, "embedding": vector})
    usage = _object({"prompt_tokens": _COUNT, "total_tokens": _COUNT})
    return _object({"object": _TEXT, "data": {"type": "array", "items": row}, "model": _TEXT, "usage": usage})


def _answer(content: JsonObject, usage: JsonObject) -> JsonObject:
    choice = _object({"index": _COUNT, **content, "logprobs": _MAYBE_OBJECT, "finish_reason": _FINISH})
    return _object(
        {
            "id": _TEXT,
            "object": _TEXT,
            "created": _COUNT,
            "model": _TEXT,
            "system_fingerprint": _TEXT,
            "choices": {"type": "array", "items": choice},
            "usage": usage,
        }
    )


def _object(properties: JsonObject) -> JsonObject:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> JsonObject:
    return {"$ref": f"#/components/schemas/{name}"}
