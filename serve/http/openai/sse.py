"""Server-sent events: one answer that is told in pieces, each a line of JSON, until "[DONE]" or an error.

Source: the WHATWG HTML standard, "Server-sent events", as OpenAI's API uses it. Must know nothing of models.
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.types import Send

from edgetune.serve.http.errors import Refused
from edgetune.serve.http.openai.faults import error_object

# For the last words of a stream that failed: a client that takes nothing must not hold what is over.
LAST_WORDS_SECONDS = 1.0

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would keep the pieces until they fill a buffer
]
_ENCODER = msgspec.json.Encoder()


class EventStream:
    """The events of one answer. Nothing is sent before the first, so that a refusal can have a status of its own."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def tell(self, value: object) -> None:
        """Send one event."""
        await self._write(_ENCODER.encode(value))

    async def end(self) -> None:
        """Say that the answer is whole, and close it."""
        await self._write(b"[DONE]")
        await self._close()

    async def fail(self, refused: Refused) -> None:
        """Say why there is no more, and close; the status has gone out long before."""
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self.tell(error_object(refused))
                await self._close()
        except TimeoutError:
            return

    async def _write(self, content: bytes) -> None:
        if not self.begun:
            self.begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        await self._send({"type": "http.response.body", "body": b"data: " + content + b"\n\n", "more_body": True})

    async def _close(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
