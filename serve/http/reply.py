"""One whole HTTP answer, sent as two ASGI messages: what the hot routes give instead of a Starlette response.

A Starlette Response encodes its headers anew and waits on background tasks; these bytes are ready.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from starlette.types import Send

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, body and headers (lower-case names, as ASGI wants them) of one answer."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def send(self, send: Send, *, finish: bool = True) -> None:
        """Send it; without `finish` the connection stays in use until an empty last body is sent."""
        headers = [
            (b"content-type", self.content_type),
            (b"content-length", str(len(self.body)).encode()),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": not finish})


_ENCODER = msgspec.json.Encoder()


def json_reply(value: object, status: int = 200) -> Reply:
    """A value as a JSON answer."""
    return Reply(_ENCODER.encode(value), status)
