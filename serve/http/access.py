"""What surrounds every request: its id, its key, its place in the metrics and its line in the access log.

One ASGI wrapper for all of it: each layer of middleware costs every request a coroutine and a closure, and
Starlette's BaseHTTPMiddleware a task besides.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO
from uuid import uuid4

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgetune.serve.errors import EdgetuneError
from edgetune.serve.http.browsers import check_host, cors_headers, preflight_headers
from edgetune.serve.http.errors import CLIENT_LEFT, ClientLeft, Refused, sayable
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.metrics import Metrics
from edgetune.serve.http.openai.faults import refusal
from edgetune.serve.http.reply import Reply
from edgetune.serve.http.settings import ServerSettings

if TYPE_CHECKING:
    from edgetune.serve.http.keys import Keys
    from edgetune.serve.http.split import Split

VISIT = "edgetune.serve.visit"
KEY_HEADER, ARM_HEADER = b"x-edgetune-key", b"x-edgetune-arm"
LOGGER = logging.getLogger("edgetune.access-log")
SERVER_LOGGER = logging.getLogger("edgetune.serve")
LOGGER.setLevel(logging.WARNING)  # closed until it is opened, whatever an embedding program's root logger lets through

# Without a key too: a balancer that watches health and a Prometheus that scrapes carry none.
OPEN_PATHS = frozenset({"/v2/health/live", "/v2/health/ready", "/metrics"})

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)


@dataclass(slots=True)
class Visit:
    """One request while it is answered; `started` by time.perf_counter, `status` 0 until an answer begins.

    Where traffic is split, `key` is the header's, and `arm` the model that answers, "" before that is settled. `forced`
    is the model of a shadow, which answers whatever the request names.
    """

    request_id: str
    started: float
    route: str = "other"
    model: str = ""
    texts: int = 0
    status: int = 0
    split: Split | None = None
    key: str = ""
    arm: str = ""
    forced: str = ""

    def asked(self, wished: str | None, user: str = "") -> str | None:
        """The model that answers who wishes for one by name, None where none is named: an arm where there is a split.

        Args:
            wished: by the client.
            user: whom the body names, where the header names no key.
        """
        if self.forced:
            return self.forced
        if self.split is None or wished not in (None, self.split.name):
            return wished
        self.arm = self.split.arm_of(self.key or user or self.request_id)
        return self.arm


def visit_of(scope: Scope) -> Visit:
    """The visit that the wrapper has put into a request's scope."""
    visit: Visit = scope[VISIT]
    return visit


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


@contextlib.contextmanager
def access_log(stream: TextIO | None = None) -> Iterator[None]:
    """Write one JSON line a request to `stream`, standard error when None; before and afterwards none is written."""
    sink = logging.StreamHandler(stream or sys.stderr)
    sink.setFormatter(logging.Formatter("%(message)s"))
    before = LOGGER.handlers, LOGGER.propagate
    LOGGER.handlers, LOGGER.propagate = [sink], False
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(logging.WARNING)
        LOGGER.handlers, LOGGER.propagate = before


class Access:
    """The wrapper around all routes."""

    def __init__(
        self, app: ASGIApp, *, limits: Limits, metrics: Metrics, keys: Keys | None, settings: ServerSettings
    ) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._keys = keys
        self._allow_host, self._allow_origin = settings.allow_host, settings.allow_origin
        self._split = settings.split

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = Visit(_request_id(header(scope, b"x-request-id")), time.perf_counter())
        scope[VISIT] = visit
        if self._split is not None:
            visit.split, visit.key = self._split, header(scope, KEY_HEADER) or ""
        origin = header(scope, b"origin") if self._allow_origin else None
        added = [(b"x-request-id", visit.request_id.encode()), *cors_headers(origin, self._allow_origin)]

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [*message["headers"], *added]
                if visit.arm:
                    message["headers"].append((ARM_HEADER, visit.arm.encode()))
            await send(message)

        try:
            if self._allow_host:
                check_host(header(scope, b"host"), self._allow_host)
            if len(added) > 2 and scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method"):
                await _answer_preflight(visit, scope, tagged)
                return
            if self._keys is not None and scope["path"] not in OPEN_PATHS:
                _check_key(self._keys, scope)
            await self._app(scope, receive, tagged)
        except EdgetuneError as error:
            if visit.status:
                raise
            await self._refuse(error, scope, receive, tagged)
        except ClientLeft:
            visit.status = CLIENT_LEFT
        finally:
            self._finish(visit, scope)

    async def _refuse(self, error: EdgetuneError, scope: Scope, receive: Receive, send: Send) -> None:
        refused, body = refusal(scope["path"], error)
        if refused.status == 500:
            SERVER_LOGGER.error("request %s failed: %s", visit_of(scope).request_id, error)
        headers = {**refused.headers}
        if refused.retry_after_seconds is not None:
            headers["retry-after"] = str(refused.retry_after_seconds)
        if refused.close:
            headers["connection"] = "close"
        pairs = tuple((name.encode(), value.encode()) for name, value in headers.items())
        reply = Reply(body, refused.status, headers=pairs)
        if not (refused.close and refused.status == 413):
            await reply.send(send)
            return
        await reply.send(send, finish=False)
        if not header(scope, b"expect"):
            await self._limits.drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _finish(self, visit: Visit, scope: Scope) -> None:
        seconds = time.perf_counter() - visit.started
        visit.status = visit.status or 500
        self._metrics.observe_request(visit.model, visit.route, visit.status, seconds)
        if visit.arm:
            self._metrics.observe_arm(visit.arm, visit.status, seconds)
        if LOGGER.isEnabledFor(logging.INFO):
            LOGGER.info(_line(visit, scope, seconds))


async def _answer_preflight(visit: Visit, scope: Scope, send: Send) -> None:
    """Before any key is asked for: a browser sends none with this question."""
    visit.route = "preflight"
    headers = preflight_headers(header(scope, b"access-control-request-headers"))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def observe_refusals(metrics: Metrics) -> Callable[[int, str], None]:
    """What a connection tells its own refusals to: they have no route, and of what was sent nothing is known."""

    def observe(status: int, client: str) -> None:
        metrics.observe_request("", "protocol", status, 0.0)
        if LOGGER.isEnabledFor(logging.INFO):
            visit = Visit(uuid4().hex, time.perf_counter(), route="protocol", status=status)
            LOGGER.info(_line(visit, {"method": "", "path": "", "client": (client, 0)}, 0.0))

    return observe


def _line(visit: Visit, scope: Scope, seconds: float) -> str:
    client = scope.get("client")
    facts = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "method": scope["method"],
        "path": sayable(scope["path"]),
        "status": visit.status,
        "ms": round(seconds * 1000, 3),
        "texts": visit.texts,
        "model": visit.model,
        "request_id": visit.request_id,
        "client": client[0] if client else "",
    } | ({"arm": visit.arm} if visit.arm else {})
    return msgspec.json.encode(facts).decode()


def _request_id(presented: str | None) -> str:
    """What the client calls its request, if that can stand in a header and a log; a new name otherwise."""
    return presented if presented and _SANE_ID.fullmatch(presented) else uuid4().hex


def _check_key(keys: Keys, scope: Scope) -> None:
    scheme, _, presented = (header(scope, b"authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not presented:
        presented = header(scope, b"x-api-key") or ""
    if not presented:
        problem = "The request carries no key."
    elif not keys.accepts(presented.strip()):
        problem = "The key is not known here, or no longer."
    else:
        return
    raise Refused(
        401,
        problem,
        expected="the header Authorization: Bearer KEY, or X-API-Key: KEY",
        headers={"www-authenticate": "Bearer"},
    )
