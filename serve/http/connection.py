"""One connection with time limits on every phase: a client that is slow, silent or endless is answered 408 and closed.

uvicorn bounds nothing but the pause between two requests: neither the head nor the body of a request nor the taking of
the answer. The server's sweep asks each connection twice a second, so that a request costs no timer.
"""

from __future__ import annotations

import asyncio
import enum
import http
import math
from collections.abc import Callable
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgetune.serve.http.openai.faults import is_openai
from edgetune.serve.http.settings import ServerSettings

# llhttp takes heads of any size; others stop at 8 to 64 KiB.
MAX_HEAD_BYTES = 64 * 1024
# The application answers a late body itself, with its own words; this is for bodies that nobody reads.
SPARE_SECONDS = 1.0
# Connections at rest stay open this long after the server began to leave: a request may be on its way.
LINGER_SECONDS = 0.5

_UPGRADE_HEADERS = (b"upgrade", b"http2-settings")


class Phase(enum.Enum):
    """What a connection waits for."""

    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWER = enum.auto()
    TAKING = enum.auto()  # the client has not taken the whole answer yet
    REST = enum.auto()  # between two requests, which uvicorn's keep-alive timer bounds


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol on httptools, bounded in time, in the size of a head, and in the number of connections."""

    settings = ServerSettings()
    # Told of each refusal that no route knows of: its status, and the client's address.
    observe: Callable[[int, str], None] = staticmethod(lambda status, client: None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_head = True
        self._head_bytes = 0
        self._has_ended = False
        self._leaves_at = math.inf
        self._enter(Phase.HEAD, self.settings.read_seconds)
        if len(self.connections) > self.settings.max_connections:
            self._refuse(503, f"{self.settings.max_connections} connections are open already.")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._phase is Phase.REST:
            self._enter(Phase.HEAD, self.settings.read_seconds)
        self._has_ended = False
        self._feed(data)
        if self._in_head and not self._has_ended:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, f"The head of the request is larger than {MAX_HEAD_BYTES:,} bytes.")

    def _feed(self, data: bytes) -> None:
        """Let the parser read on.

        A request that asks for another protocol ("Upgrade: h2c", as curl --http2 and Java's client do) is answered by
        this one. httptools takes what stands behind such a head for the other protocol, so the message is read again,
        by a parser that does not see the header.
        """
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as error:
                if not self._is_upgrade:
                    return
                data = self._head_without_upgrade() + data[error.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return

    @property
    def _is_upgrade(self) -> bool:
        """Whether the message asks for another protocol. CONNECT does so by its method, and has no body."""
        upgrade: bool = self.parser.should_upgrade()
        return upgrade and self.parser.get_method() != b"CONNECT"

    def _head_without_upgrade(self) -> bytes:
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                value = b", ".join(token for token in tokens if token.lower() not in _UPGRADE_HEADERS)
            if name not in _UPGRADE_HEADERS:
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._has_ended:  # behind another request in the same piece of data: how much of it is not known
            self._head_bytes = 1

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers behind a chunked body are nothing that anyone reads here
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_upgrade:
            return
        self._in_head = False
        super().on_headers_complete()
        self._enter(Phase.BODY, self.settings.read_seconds + SPARE_SECONDS)
        if self._leaves_at < math.inf:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        if self._is_upgrade:
            return
        super().on_message_complete()
        self._in_head, self._head_bytes, self._has_ended = True, 0, True
        if self.cycle.response_complete:
            self._rest()
        else:
            self._enter(Phase.ANSWER, self._answer_seconds)

    def on_response_complete(self) -> None:
        is_next_waiting = bool(self.pipeline)
        super().on_response_complete()
        if is_next_waiting:
            self._enter(Phase.ANSWER, self._answer_seconds)
        elif self._in_head:
            self._rest()

    def shutdown(self) -> None:
        """Answer what is being asked and what is on its way, then close."""
        self._leaves_at = self.loop.time() + min(LINGER_SECONDS, self.settings.grace_seconds / 2)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def sweep(self, now: float) -> None:
        """Close the connection if what it waits for is overdue; `now` by the loop's clock."""
        is_idle = self._phase is Phase.REST or (self._phase is Phase.HEAD and not self._head_bytes)
        if now >= self._leaves_at and is_idle:
            self.transport.close()
        elif now >= self._deadline:
            self._expire()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self.transport.abort()

    @property
    def _answer_seconds(self) -> float:
        """What the route may take, which bounds itself, and its client to read the answer."""
        settings = self.settings
        seconds = settings.generation_seconds if is_openai(self.cycle.scope["path"]) else settings.request_seconds
        return seconds + settings.read_seconds

    def _enter(self, phase: Phase, seconds: float) -> None:
        self._phase = phase
        self._deadline = self.loop.time() + seconds

    def _rest(self) -> None:
        """After an answer: wait for the client to take it, for the rest of the next head, or for nothing."""
        if self.transport.get_write_buffer_size():
            self._enter(Phase.TAKING, self.settings.read_seconds)
        elif self._head_bytes:
            self._enter(Phase.HEAD, self.settings.read_seconds)
        else:
            self._phase, self._deadline = Phase.REST, math.inf

    def _expire(self) -> None:
        seconds = self.settings.read_seconds
        if self.transport.is_closing():
            self.transport.abort()
        elif self._phase is Phase.TAKING and not self.transport.get_write_buffer_size():
            self._rest()
        elif self._phase is Phase.HEAD:
            self._refuse(408, f"The head of the request had not arrived whole after {seconds:g} seconds.")
        elif self._phase is Phase.BODY and not self.cycle.response_started:
            self._refuse(408, f"The body had not arrived whole after {seconds:g} seconds.")
        else:
            self.transport.abort()

    def _refuse(self, status: int, problem: str) -> None:
        """Say why in the words of the protocol's errors, and close; the application hears that the client has left."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = msgspec.json.encode({"error": problem})
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n"
        )
        if status == 503:
            head += "retry-after: 1\r\n"
        self.observe(status, self.client[0] if self.client else "")
        self.transport.write(head.encode("ascii") + b"\r\n" + body)
        self.transport.close()
        self._enter(Phase.TAKING, self.settings.read_seconds)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, in the words of the protocol's errors."""
        self._refuse(400, msg)


def bounded_by(settings: ServerSettings, observe: Callable[[int, str], None] | None = None) -> type[BoundedConnection]:
    """The protocol class with these limits, as uvicorn takes it; `observe` is told of its own refusals."""
    members: dict[str, Any] = {"settings": settings}
    if observe is not None:
        members["observe"] = staticmethod(observe)
    return type("BoundedConnection", (BoundedConnection,), members)
