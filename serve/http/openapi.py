"""The server's description of itself, OpenAPI 3.1, and a page of it in plain HTML.

Written by hand: every status that a route can answer stands here, and a fuzzing client holds the server to it.
No CDN and no script: the page works where nothing else can be reached.
"""

from __future__ import annotations

from html import escape
from importlib.metadata import version

import msgspec

from edgetune.serve.http.feedback import FEEDBACK_PATH
from edgetune.serve.http.openai.description import openai_schemas
from edgetune.serve.http.openai.faults import CHAT_PATH, COMPLETIONS_PATH, EMBEDDINGS_PATH, MODELS_PATH, is_openai
from edgetune.serve.http.page import html_page
from edgetune.serve.http.schemas import Interfaces, ref, schemas
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.json_types import JsonObject

WORDS = {
    "400": "The request cannot be understood; `error` says what was found and what was expected.",
    "401": "The key is missing or not known.",
    "403": "Not allowed here.",
    "404": "There is no such model or version.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is no JSON by its own telling, or compressed in another way than by gzip or deflate.",
    "422": "Well formed, and cannot be answered: an empty text, too many texts, too long a text.",
    "429": "Too many requests are being answered; Retry-After says when to ask again.",
    "500": "A bug of the server.",
    "503": "Not now: the model is not ready, the queue is full or the time is over; Retry-After says how long to wait.",
}
READING = ("400", "408", "413", "415", "503")
ANSWERING = ("404", "422", "429")


def openapi(settings: ServerSettings, interfaces: Interfaces, *, guarded: bool) -> JsonObject:
    """The description of a server with these limits and models; `guarded` where it asks for a key."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgetune",
            "version": version("edgetune"),
            "description": (
                "Edgetune bundles: answers to texts by the Open Inference Protocol (version 2), "
                "and text generation as OpenAI's API has it."
            ),
        },
        "paths": _paths(settings, guarded=guarded),
        "components": {
            "schemas": {**schemas(settings, interfaces), **openai_schemas()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        **({"security": [{"bearer": []}, {"key": []}]} if guarded else {}),
    }


def _paths(settings: ServerSettings, *, guarded: bool) -> JsonObject:
    one = "/v2/models/{name}"
    change = ("404", "422") if guarded else ("403", "404")
    health: JsonObject = {"security": []}
    html = {"text/html": {"schema": {"type": "string"}}}
    infer = _operation(
        "infer", "Answer texts or ids", "InferenceAnswer", (*READING, *ANSWERING), body="InferenceRequest"
    )
    infer["requestBody"]["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    infer["responses"]["200"]["content"]["application/octet-stream"] = {
        "schema": {"type": "string", "format": "binary"}
    }
    length = _parameter("Inference-Header-Content-Length", "header", {"type": "integer", "minimum": 0}, required=False)
    classify = _operation("classify", "Answer texts", "Answer", (*READING, *ANSWERING), body="ClassifyRequest")
    paths = {
        "/v1/classify": {"post": classify},
        "/v1/extract": {"post": classify | {"operationId": "extract", "summary": "Find the entities of texts"}},
        "/v2": {"get": _operation("server", "What this server is", "Server")},
        "/v2/health/live": {"get": _operation("live", "Whether the server runs", "Live") | health},
        "/v2/health/ready": {
            "get": _with(_operation("ready", "Whether every model answers", "Ready") | health, "Ready")
        },
        "/v2/models/stats": {"get": _operation("all_stats", "What was counted of all models", "ModelStatistics")},
        one: {"get": _operation("model", "Inputs and outputs of a model", "Model", ("404", "503"))},
        one + "/ready": {
            "get": _with(_operation("model_ready", "Whether a model answers", "ModelReady", ("404",)), "ModelReady")
        },
        one + "/config": {
            "get": _operation("config", "A model as Triton configures it", "ModelConfig", ("404", "503"))
        },
        one + "/stats": {"get": _operation("stats", "What was counted of a model", "ModelStatistics", ("404", "503"))},
        one + "/infer": {"post": infer | {"parameters": [length]}},
        "/v2/repository/index": {"post": _operation("index", "All models", "Index", READING, body="RepositoryRequest")},
        **{
            f"/v2/repository/models/{{name}}/{what}": {
                "post": _operation(
                    what, f"{what.title()} a model", "Done", (*READING, *change), body="RepositoryRequest"
                )
            }
            for what in ("load", "unload")
        },
        "/models/{name}/report": {"get": _operation("report", "A bundle's report", html, ("404", "503"))},
        FEEDBACK_PATH: {
            "post": _operation(
                "feedback",
                "Say what an answer was worth",
                "FeedbackKept",
                (*READING, *ANSWERING),
                body="FeedbackRequest",
            )
        },
        **_openai_paths(),
        "/metrics": {"get": _operation("metrics", "For Prometheus", {"text/plain": html["text/html"]}) | health},
        "/openapi.json": {"get": _operation("openapi", "This description", {"application/json": {}})},
        "/try.js": {
            "get": _operation("script", "What the page at / runs", {"text/javascript": {"schema": {"type": "string"}}})
        },
        "/docs": {"get": _operation("docs", "This description as a page", html)},
        "/": {"get": _operation("home", "What is loaded", html)},
    }
    _add_versions(paths, one)
    _add_names(paths)
    _add_answers(paths, guarded=guarded)
    _say_as_openai(paths)
    return paths


def _openai_paths() -> JsonObject:
    """The routes that generate or embed; 400 stands for 422 too, which OpenAI's API does not have."""
    # Without a schema: some readers take it for the whole text's, others for that of each event.
    events: JsonObject = {"text/event-stream": {}}
    errors = (*READING, "404", "429")
    chat = _operation("chat", "Answer a chat", "ChatAnswer", errors, body="ChatRequest")
    complete = _operation("complete", "Continue a text", "CompletionAnswer", errors, body="CompletionRequest")
    for operation in (chat, complete):
        operation["responses"]["200"]["content"] |= events
    embed = _operation("embeddings", "Embed texts", "EmbeddingsAnswer", errors, body="EmbeddingsRequest")
    return {
        EMBEDDINGS_PATH: {"post": embed},
        CHAT_PATH: {"post": chat},
        COMPLETIONS_PATH: {"post": complete},
        MODELS_PATH: {"get": _operation("openai_models", "Models that generate text", "OpenAIModels")},
        MODELS_PATH + "/{name}": {
            "get": _operation("openai_model", "One model", "OpenAIModel", ("404", "503")),
        },
    }


def _say_as_openai(paths: JsonObject) -> None:
    """On these routes an error is an object."""
    for path, methods in paths.items():
        for operation in methods.values() if is_openai(path) else ():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    answer["content"] = {"application/json": {"schema": ref("OpenAIError")}}


def _add_versions(paths: JsonObject, one: str) -> None:
    """The same routes for a version that is named."""
    for path in [path for path in paths if path.startswith(one)]:
        ((method, operation),) = paths[path].items()
        again = {**operation, "operationId": operation["operationId"] + "_version"}
        paths[path.replace(one, one + "/versions/{version}")] = {method: again}


def _add_names(paths: JsonObject) -> None:
    for path, methods in paths.items():
        for operation in methods.values():
            named = [part[1:-1] for part in path.split("/") if part.startswith("{")]
            if named:
                own = [_parameter(name, "path", {"type": "string", "minLength": 1}) for name in named]
                operation["parameters"] = own + operation.get("parameters", [])


def _add_answers(paths: JsonObject, *, guarded: bool) -> None:
    """What any route can answer: a key that is refused, and a bug."""
    for methods in paths.values():
        for operation in methods.values():
            statuses = {"500"} | ({"401"} if guarded and operation.get("security") != [] else set())
            for status in sorted(statuses):
                operation["responses"].setdefault(status, _error(status))
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-ID"] = {"schema": {"type": "string"}}


def _operation(
    name: str, summary: str, answer: str | JsonObject, errors: tuple[str, ...] = (), *, body: str = ""
) -> JsonObject:
    content = {"application/json": {"schema": ref(answer)}} if isinstance(answer, str) else answer
    responses = {"200": {"description": "OK", "content": content}} | {status: _error(status) for status in errors}
    operation: JsonObject = {"operationId": name, "summary": summary, "responses": responses}
    if body:
        required = body != "RepositoryRequest"
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": ref(body)}}}
    return operation


def _with(operation: JsonObject, answer: str) -> JsonObject:
    """A route that tells the same whether it says yes (200) or no (503)."""
    content = {"application/json": {"schema": ref(answer)}}
    operation["responses"]["503"] = {"description": "Not now.", "content": content}
    return operation


def _error(status: str) -> JsonObject:
    error: JsonObject = {"description": WORDS[status], "content": {"application/json": {"schema": ref("Error")}}}
    if status in ("429", "503"):
        error["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return error


def _parameter(name: str, place: str, schema: JsonObject, *, required: bool = True) -> JsonObject:
    return {"name": name, "in": place, "required": required, "schema": schema}


def docs_page(description: JsonObject) -> str:
    """The description as a page: every route with its statuses, and the schemas behind a fold."""
    sections = "".join(
        _route(path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    schemas = escape(msgspec.json.format(msgspec.json.encode(description["components"]["schemas"]), indent=2).decode())
    title = f"edgetune {description['info']['version']}"
    body = (
        f"<h1>{escape(title)}</h1><p>{escape(description['info']['description'])} "
        f'As JSON: <a href="/openapi.json">/openapi.json</a>; <a href="/">what is loaded</a>.</p>{sections}'
        f'<h2 id="schemas">Schemas</h2><details><summary>all of them</summary><pre>{schemas}</pre></details>'
    )
    return html_page(title, body)


def _route(path: str, method: str, operation: JsonObject) -> str:
    rows = "".join(
        f"<tr><td><code>{status}</code></td><td>{escape(answer['description'])}</td><td>{_names(answer)}</td></tr>"
        for status, answer in sorted(operation["responses"].items())
    )
    sent = operation.get("requestBody")
    body = f"<p>Body: {_names(sent)}</p>" if sent else ""
    heading = f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>"
    return f"<section>{heading}{body}<table>{rows}</table></section>"


def _names(part: JsonObject) -> str:
    """The media types of a body or answer, with the names of their schemas."""
    words = []
    for kind, content in part["content"].items():
        name = str(content.get("schema", {}).get("$ref", "")).rpartition("/")[2]
        words.append(escape(f"{kind} {name}".strip()))
    return ", ".join(words)
