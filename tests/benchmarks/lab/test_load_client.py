"""The load client against a server whose answers are known: what counts as an answer, a refusal and a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from benchmarks.lab.load_client import Answered, Load, Order

Respond = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


async def say(writer: asyncio.StreamWriter, status: str, body: bytes = b"{}") -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


async def loaded(respond: Respond, **order: object) -> tuple[Answered, list[bytes]]:
    """What the client reports of a server that calls `respond` with the number of each request, and the bodies."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                bodies.append(await reader.readexactly(length))
                await respond(len(bodies) - 1, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asked = {"host": "127.0.0.1", "port": port, "path": "/ask", "bodies": ['{"a":1}', '{"a":2}'], **order}
        return await Load(Order(**asked)).run(), bodies  # type: ignore[arg-type]


def test_a_closed_loop_counts_answers_and_keeps_them_by_body():
    async def respond(number: int, writer: asyncio.StreamWriter) -> None:
        await say(writer, "200 OK", str(number).encode())

    found, bodies = uvloop.run(loaded(respond, seconds=30.0, callers=1, most_requests=6))

    assert bodies == [b'{"a":1}', b'{"a":2}'] * 3
    assert len(found.ms) == 6
    assert min(found.ms) > 0
    assert found.answers == {0: "4", 1: "5"}
    assert (found.refused, found.faults, found.unsent) == (0, {}, 0)


def test_refusals_faults_and_closed_connections_are_told_apart():
    async def respond(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 3:
            writer.close()
        else:
            status = {0: "200 OK", 1: "503 Busy", 2: "500 Fault", 4: "429 Many"}[number]
            await say(writer, status)

    found, _ = uvloop.run(loaded(respond, seconds=30.0, callers=1, most_requests=5))

    assert len(found.ms) == 1
    assert found.refused == 2
    assert found.faults == {"status 500": 1, "ConnectionResetError": 1}


def test_an_open_loop_does_not_wait_for_answers_and_tells_what_it_could_not_send():
    async def respond(number: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        await say(writer, "200 OK")

    found, _ = uvloop.run(loaded(respond, seconds=0.25, callers=4, rate_per_second=200.0))

    assert len(found.ms) == 4  # all connections were busy from the fourth request on
    assert found.unsent > 10
    assert found.faults == {}


def test_a_server_that_says_nothing_is_a_fault_after_the_timeout():
    async def respond(number: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    found, _ = uvloop.run(loaded(respond, seconds=30.0, callers=1, most_requests=1, timeout_seconds=0.1))

    assert found.faults == {"TimeoutError": 1}


def test_nobody_listening_is_a_fault():
    order = Order(host="127.0.0.1", port=1, path="/", bodies=["{}"], seconds=30.0, callers=1, most_requests=2)

    found = uvloop.run(Load(order).run())

    assert found.faults == {"ConnectionRefusedError": 2}


@pytest.mark.parametrize("rate", [50.0, 400.0])
def test_the_same_seed_gives_about_the_offered_rate(rate):
    async def respond(number: int, writer: asyncio.StreamWriter) -> None:
        await say(writer, "200 OK")

    found, _ = uvloop.run(loaded(respond, seconds=1.0, callers=64, rate_per_second=rate))

    assert 0.7 * rate < len(found.ms) + found.unsent < 1.3 * rate
