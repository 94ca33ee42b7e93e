"""Errors in the form that OpenAI's clients read: {"error": {"message", "type", "param", "code"}}.

Stands apart from the server's other errors because the wrapper of all routes asks here by the path alone. Must import
nothing of the web stack.
"""

from __future__ import annotations

import msgspec

from edgetune.serve.errors import EdgetuneError
from edgetune.serve.http.errors import Refused, as_refused, error_body, sayable
from edgetune.serve.json_types import JsonObject

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
EMBEDDINGS_PATH = "/v1/embeddings"
MODELS_PATH = "/v1/models"

_TYPES = {403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded", 503: "unavailable"}


class Unfit(Refused):
    """A request that cannot be answered as it is, with the parameter at fault and a word that programs can read.

    Args:
        found, expected, action: as for every EdgetuneError.
        param: the member of the body that is wrong.
        code: one word for the fault.
        status: 4xx.
    """

    def __init__(
        self,
        found: str,
        *,
        expected: str = "",
        action: str = "",
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(status, found, expected=expected, action=action)
        self.param = param
        self.code = code


def is_openai(path: str) -> bool:
    """Whether a path is one of OpenAI's API, known here or not."""
    return path in (COMPLETIONS_PATH, EMBEDDINGS_PATH, MODELS_PATH) or path.startswith(("/v1/chat/", MODELS_PATH + "/"))


def refusal(path: str, error: EdgetuneError) -> tuple[Refused, bytes]:
    """What an error becomes on a path: the refusal, and the body in the words of the API that the path belongs to."""
    refused = as_refused(error)
    if not is_openai(path):
        return refused, error_body(refused)
    if refused.status == 422:  # a status that OpenAI's API does not have
        refused.status = 400
    return refused, msgspec.json.encode(error_object(refused))


def error_object(refused: Refused) -> JsonObject:
    """The object that stands for a refusal, in an answer or among the events of a stream."""
    status = refused.status
    default = "server_error" if status >= 500 else "invalid_request_error"
    code = refused.code if isinstance(refused, Unfit) and refused.code else _CODES.get(status)
    return {
        "error": {
            "message": sayable(str(refused).replace("\n", " ")),
            "type": _TYPES.get(status, default),
            "param": refused.param if isinstance(refused, Unfit) else None,
            "code": code,
        }
    }
