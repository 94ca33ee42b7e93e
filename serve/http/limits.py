"""How much a request may bring and how long it may last: body size, bodies at once, requests at once, time.

Past each limit stands a refusal with the status that says which; nothing waits without an end and nothing is kept
beyond its request.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive, Scope

from edgetune.serve.http.errors import RETRY_SECONDS, ClientLeft, Refused, invalid
from edgetune.serve.http.settings import ServerSettings

# All bodies that are being read or answered together, in bodies of the largest size.
MOST_BODIES = 16

# A request that is answered sooner is not watched for its client leaving: the watch costs a task.
WATCH_AFTER_SECONDS = 0.02

# After 413 more is read and thrown away, within this time and so many times the largest body: a client that writes
# before it reads would see a reset instead of the answer.
DRAIN_SECONDS = 1.0
DRAIN_BODIES = 16

# What cannot hold JSON. Everything else is tried: `curl -d` names a form, and many clients name nothing.
_OTHER_TYPES = ("multipart/", "image/", "audio/", "video/", "font/", "text/html", "text/xml", "text/csv", "text/css")
_OTHER_APPLICATIONS = ("xml", "msgpack", "x-msgpack", "cbor", "pdf", "zip", "gzip", "protobuf", "x-protobuf", "grpc")


_COMPRESSIONS = (b"gzip", b"x-gzip", b"deflate")
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib finds out which of them by the first bytes

Answer = TypeVar("Answer")


class Limits:
    """The limits of one server process and what is under way against them.

    Attributes:
        running: requests being worked on now.
        body_bytes: bytes of bodies held now.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self.running = 0
        self.body_bytes = 0

    async def attend(
        self,
        scope: Scope,
        receive: Receive,
        work: Callable[[bytes], Coroutine[Any, Any, Answer]],
        *,
        seconds: float | None = None,
        types: tuple[str, ...] = (),
    ) -> Answer:
        """Read the request's body and have `work` answer it, within all limits.

        Args:
            scope, receive: as ASGI gives them.
            work: from the body to the answer; a stream has been sent when it returns.
            seconds: for all of it; None takes `request_seconds`.
            types: beginnings of content types that `work` understands beside JSON.

        Raises:
            Refused: 408, 413, 415, 429 or 503, or whatever `work` refuses.
            ClientLeft: the client closed its connection; `work` was cancelled.
        """
        most = self._settings.max_requests
        if self.running >= most:
            raise Refused(
                429,
                f"{most} requests are being answered already.",
                action="ask again a little later",
                retry_after_seconds=RETRY_SECONDS,
            )
        seconds = self._settings.request_seconds if seconds is None else seconds
        deadline = asyncio.get_running_loop().time() + seconds
        self.running += 1
        body = bytearray()
        try:
            await self.read_into(body, scope, receive, types)
            return await self._within(deadline, seconds, receive, work(bytes(body)))
        finally:
            self.running -= 1
            self.body_bytes -= len(body)

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """A body that is used at once and small by nature, under the same limits of size and time."""
        body = bytearray()
        try:
            await self.read_into(body, scope, receive)
            return bytes(body)
        finally:
            self.body_bytes -= len(body)

    async def read_into(self, body: bytearray, scope: Scope, receive: Receive, types: tuple[str, ...] = ()) -> None:
        """Read a request's body; what is in `body` counts as held until the caller lets it go.

        Raises:
            Refused: 400, 408, 413, 415 or 503.
            ClientLeft: the client closed its connection.
        """
        compression = _check_headers(scope, self._settings.max_body_bytes, types)
        seconds = self._settings.read_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._collect(body, receive, compression)
        except TimeoutError:
            raise Refused(
                408,
                f"The body had not arrived whole after {seconds:g} seconds.",
                expected=f"a body sent within {seconds:g} seconds",
                close=True,
            ) from None

    async def _collect(self, body: bytearray, receive: Receive, compression: str) -> None:
        most = self._settings.max_body_bytes
        inflate = Inflater(most) if compression else None
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk = message.get("body", b"")
            if inflate is not None:
                chunk = inflate.feed(chunk, room=most - len(body))
            body += chunk
            self.body_bytes += len(chunk)
            if len(body) > most:
                raise _too_large(most)
            if self.body_bytes > MOST_BODIES * most:
                raise Refused(
                    503,
                    f"Bodies of more than {MOST_BODIES * most:,} bytes together are being answered.",
                    action="ask again a little later",
                    retry_after_seconds=RETRY_SECONDS,
                    close=True,
                )
            more = message.get("more_body", False)
        if inflate is not None:
            inflate.check_end()

    async def _within(
        self, deadline: float, seconds: float, receive: Receive, answer: Coroutine[Any, Any, Answer]
    ) -> Answer:
        """Await an answer until `deadline` (of the loop's clock, `seconds` after the start), or the client leaves."""
        loop = asyncio.get_running_loop()
        watches: list[asyncio.Task[None]] = []
        clock = asyncio.timeout_at(deadline)
        left = False

        async def notice_leaving() -> None:
            nonlocal left
            while (await receive())["type"] != "http.disconnect":
                pass
            left = True
            clock.reschedule(loop.time())

        begin = loop.call_later(WATCH_AFTER_SECONDS, lambda: watches.append(loop.create_task(notice_leaving())))
        try:
            async with clock:
                try:
                    return await answer
                finally:
                    begin.cancel()
                    for watch in watches:
                        watch.cancel()
        except TimeoutError:
            if left:
                raise ClientLeft from None
            if not clock.expired():
                raise
            raise Refused(
                503,
                f"There was no answer within {seconds:g} seconds.",
                action="ask again later, or with fewer or shorter texts",
                retry_after_seconds=RETRY_SECONDS,
            ) from None

    async def drain(self, receive: Receive) -> None:
        """Throw away what is left of a refused body, within limits of its own."""
        left = DRAIN_BODIES * self._settings.max_body_bytes
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return


class Inflater:
    """A compressed body on its way to `most` bytes: how much larger it would become than that is never found out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)

    def feed(self, chunk: bytes, *, room: int) -> bytes:
        """What a piece becomes, of which there may be `room` bytes.

        Raises:
            Refused: 400 or 413; it is not compressed so, or becomes too large.
        """
        if self._stream.eof and chunk:
            raise invalid("More stands behind the end of the compressed body.")
        try:
            whole = self._stream.decompress(chunk, room + 1)
        except zlib.error as error:
            raise invalid(f"The body cannot be decompressed: {error}.", expected="gzip or zlib") from error
        if len(whole) > room:
            raise _too_large(self._most)
        if self._stream.unused_data:
            raise invalid("More stands behind the end of the compressed body.")
        return whole

    def check_end(self) -> None:
        """Refuse what ended too early.

        Raises:
            Refused: 400.
        """
        if not self._stream.eof:
            raise invalid("The compressed body ends too early.", expected="a whole gzip or zlib stream")


def _check_headers(scope: Scope, most: int, types: tuple[str, ...]) -> str:
    """Refuse by the headers alone what need not be read: a size that is told and too large, a type that is no JSON.

    Returns:
        how the body is compressed; "" where it is not.
    """
    compression = ""
    for name, value in scope["headers"]:
        if name == b"content-length":
            if not value.isdigit():
                raise invalid("The header Content-Length is no number.")
            if len(value) > 18 or int(value) > most:  # Python refuses to read numbers of thousands of digits
                raise _too_large(most)
        elif name == b"content-encoding" and (encoding := value.strip().lower()) not in (b"", b"identity"):
            if encoding not in _COMPRESSIONS or compression:
                raise Refused(
                    415,
                    f"The body is compressed as {str(value, 'latin-1')[:80]!r}.",
                    expected="gzip, deflate, or no Content-Encoding",
                )
            compression = str(encoding, "ascii")
        elif name == b"content-type" and value != b"application/json":
            _check_type(str(value, "latin-1"), types)
    return compression


def _check_type(content_type: str, types: tuple[str, ...]) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if types and kind.startswith(types):
        return
    family, _, subtype = kind.partition("/")
    if kind.startswith(_OTHER_TYPES) or (
        family == "application" and (subtype in _OTHER_APPLICATIONS or subtype.endswith("+xml"))
    ):
        raise Refused(415, f"The body is of type {kind[:80]}.", expected="JSON, as Content-Type: application/json")


def _too_large(most: int) -> Refused:
    return Refused(
        413,
        f"The body is larger than {most:,} bytes.",
        expected=f"at most {most:,} bytes",
        action="send fewer or shorter texts in one request",
        close=True,
    )
