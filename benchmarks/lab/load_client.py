"""A client that loads a server over loopback and keeps what each request took: closed loop or open loop (Poisson).

Runs as a process of its own, `python -m benchmarks.lab.load_client`, a JSON order on stdin, a JSON answer on
stdout. It speaks HTTP/1.1 through httptools alone, because it shares the cores with the server: what a comfortable
client costs would be taken for the server's time.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter  # the clock of uvloop's loop has steps of a millisecond
from typing import Any, cast

import msgspec

# What a server may say when it is asked for more than it can do.
REFUSALS = (429, 503)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to send and how.

    `bodies` are JSON documents, sent in turn; `callers` of a closed loop wait for each answer; with `rate_per_second`
    requests start at Poisson times whether or not the ones before are answered, on at most `callers` connections.
    """

    host: str
    port: int
    path: str
    bodies: list[str]
    seconds: float
    callers: int
    rate_per_second: float | None = None
    most_requests: int = 1_000_000
    timeout_seconds: float = 30.0
    seed: int = 0


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. `ms` are the latencies of the requests that were answered 200, from when they were due.

    `answers` maps the place of a body to the last answer it got; `faults` counts by kind what was neither an answer nor
    an honest refusal; `unsent` were due in an open loop when every connection was busy.
    """

    seconds: float
    ms: list[float]
    refused: int
    faults: dict[str, int]
    unsent: int
    answers: dict[int, str]


@dataclass
class Tally:
    """The counts of a run while it goes on."""

    ms: list[float] = field(default_factory=list)
    refused: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    unsent: int = 0
    answers: dict[int, str] = field(default_factory=dict)

    def fault(self, kind: str) -> None:
        """Count one request that failed."""
        self.faults[kind] = self.faults.get(kind, 0) + 1


# As httpx and others: a connection that has rested for longer may be closed by the server at any moment.
KEPT_SECONDS = 5.0


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        import httptools

        self._new_parser: Callable[[Any], Any] = httptools.HttpResponseParser
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser: Any = None
        self._body: list[bytes] = []
        self.used = perf_counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Called by the parser with a piece of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser when the response is whole."""
        if self._waiting and not self._waiting.done():
            self._waiting.set_result((self._parser.get_status_code(), b"".join(self._body)))

    @property
    def open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a whole request; the status and the body of its response."""
        if self._transport is None:
            raise ConnectionResetError("the server closed the connection before a request was sent")
        self._parser, self._body = self._new_parser(self), []
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        """Close it, whatever it waits for."""
        if self._transport is not None:
            self._transport.abort()


class Load:
    """One run of an order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._requests = [_request(order, body.encode()) for body in order.bodies]
        self._idle: list[Connection] = []
        self._busy = 0
        self._sent = 0
        self.tally = Tally()

    async def run(self) -> Answered:
        """Carry the order out."""
        start = perf_counter()
        if self._order.rate_per_second is None:
            await asyncio.gather(*(self._caller(start) for _ in range(self._order.callers)))
        else:
            await self._arrivals(start, self._order.rate_per_second)
        seconds = perf_counter() - start
        for connection in self._idle:
            connection.close()
        tally = self.tally
        return Answered(
            seconds=seconds,
            ms=tally.ms,
            refused=tally.refused,
            faults=tally.faults,
            unsent=tally.unsent,
            answers=tally.answers,
        )

    async def _caller(self, start: float) -> None:
        while perf_counter() - start < self._order.seconds and self._sent < self._order.most_requests:
            await self._one(self._take(), perf_counter())

    async def _arrivals(self, start: float, rate: float) -> None:
        drawn = random.Random(self._order.seed)
        due, tasks = start, set[asyncio.Task[None]]()
        while (due := due + drawn.expovariate(rate)) - start < self._order.seconds:
            if (ahead := due - perf_counter()) > 0:
                await asyncio.sleep(ahead)
            if self._busy >= self._order.callers:
                self.tally.unsent += 1
                continue
            self._busy += 1
            task = asyncio.create_task(self._one(self._take(), due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(self._freed)
        await asyncio.gather(*tasks)

    def _freed(self, _: asyncio.Task[None]) -> None:
        self._busy -= 1

    def _take(self) -> int:
        self._sent += 1
        return (self._sent - 1) % len(self._requests)

    async def _one(self, place: int, due: float) -> None:
        """Send one request, and count how it ended."""
        tally = self.tally
        connection = None
        try:
            async with asyncio.timeout(self._order.timeout_seconds):
                connection = await self._connection()
                status, body = await connection.ask(self._requests[place])
        except (TimeoutError, OSError) as error:
            tally.fault(type(error).__name__)
            if connection is not None:
                connection.close()
            return
        if connection.open:
            connection.used = perf_counter()
            self._idle.append(connection)
        if status == 200:
            tally.ms.append(1000 * (perf_counter() - due))
            tally.answers[place] = body.decode()
        elif status in REFUSALS:
            tally.refused += 1
        else:
            tally.fault(f"status {status}")

    async def _connection(self) -> Connection:
        while self._idle:
            idle = self._idle.pop()
            if idle.open and perf_counter() - idle.used < KEPT_SECONDS:
                return idle
            idle.close()
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(Connection, self._order.host, self._order.port)
        return made


def _request(order: Order, body: bytes) -> bytes:
    head = (
        f"POST {order.path} HTTP/1.1\r\nHost: {order.host}:{order.port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    """Read an order, run it, write what came back."""
    import uvloop

    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(Load(order).run())))


if __name__ == "__main__":
    main()
