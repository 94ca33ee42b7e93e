"""What a request can be refused with: the errors of the server, and the status and JSON that each error becomes.

Stands apart so that the repository can raise what the routes answer, without either knowing the other. Must import
nothing of the web stack.
"""

from __future__ import annotations

import msgspec

from edgetune.serve.errors import BundleError, EdgetuneError, InputError, Overloaded, RunError

RETRY_SECONDS = 1
CLIENT_LEFT = 499  # nginx's number for it: never sent, since nobody is there, but logged and counted


class UnknownModel(EdgetuneError):
    """No model, or no such version of one, is served under the name that was asked for."""


class NotReady(EdgetuneError):
    """The model is known, but is loading, was unloaded, failed to load, or the server is going down."""


class Refused(EdgetuneError):
    """A request that is not answered, with the HTTP status that says why.

    Args:
        status: 4xx or 503.
        found, expected, action: as for every EdgetuneError.
        retry_after_seconds: when asking again may succeed; None where it cannot.
        close: the connection is closed after the answer, since its body was not read to the end.
        headers: more of them, by lower-case name.
    """

    def __init__(
        self,
        status: int,
        found: str,
        *,
        expected: str = "",
        action: str = "",
        retry_after_seconds: int | None = None,
        close: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(found, expected=expected, action=action)
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.close = close
        self.headers = headers or {}


class ClientLeft(Exception):
    """The client closed its connection before its answer was there: nobody is left to answer."""


def invalid(found: str, *, expected: str = "", action: str = "") -> Refused:
    """What cannot be understood: 400."""
    return Refused(400, found, expected=expected, action=action)


def unanswerable(found: str, *, expected: str = "", action: str = "") -> Refused:
    """What is well formed and cannot be answered: 422."""
    return Refused(422, found, expected=expected, action=action)


def as_refused(error: EdgetuneError) -> Refused:
    """The refusal that an error becomes; every error that the table does not name means "not now"."""
    if isinstance(error, Refused):
        return error
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 503)
    return Refused(
        status,
        error.found,
        expected=error.expected,
        action=error.action,
        retry_after_seconds=RETRY_SECONDS if status == 503 else None,
    )


_STATUSES: tuple[tuple[type[EdgetuneError], int], ...] = (
    (UnknownModel, 404),
    (InputError, 422),
    (BundleError, 422),
    (RunError, 500),
    (Overloaded, 503),
    (NotReady, 503),
)


def error_body(error: EdgetuneError) -> bytes:
    """The protocol's error object, on one line: {"error": "..."}, UTF-8."""
    return msgspec.json.encode({"error": sayable(str(error).replace("\n", " "))})


def sayable(text: str) -> str:
    """The text with whatever no encoding can carry replaced: a name in a path may hold an unpaired surrogate."""
    return text.encode("utf-8", "replace").decode("utf-8")


KINDS = {
    400: "malformed",
    401: "key",
    403: "forbidden",
    404: "unknown",
    405: "method",
    408: "slow",
    413: "too_large",
    415: "media_type",
    422: "unanswerable",
    429: "too_many",
    431: "too_large",
    CLIENT_LEFT: "left",
    503: "overloaded",
}


def kind_of(status: int) -> str:
    """One word for an error status, for the metrics: a status that is never sent on purpose is a fault."""
    return KINDS.get(status, "fault")
