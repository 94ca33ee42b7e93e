"""Every limit is reached and told: size, texts, tokens, requests, queue, time, slow bodies, clients that leave."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from edgetune.serve import load
from edgetune.serve.http.settings import ServerSettings

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "bundle-v1"
BODY = json.dumps({"text": "card"}).encode()
WAIT_SECONDS = 20


async def in_chunks(content: bytes, size: int = 1000, wait_seconds: float = 0) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
        await asyncio.sleep(wait_seconds)


def settings_of(**changes: Any) -> ServerSettings:
    return ServerSettings(watch_seconds=0, **changes)


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def limits_of(service: Any) -> Any:
    """The limits that the application's wrapper holds."""
    return next(each for each in service.app.user_middleware).kwargs["limits"]


@pytest.mark.parametrize("told", [True, False])
def test_a_body_too_large_is_refused_before_it_is_read(make_service, told):
    service = make_service(settings_of(max_body_bytes=2000))
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1000
            yield b"x" * 1000

    headers = {"content-length": "1000000"} if told else {}
    answer = service.post("/v1/classify", endless(), headers)
    assert (answer.status_code, list(answer.json())) == (413, ["error"])
    assert "larger than 2,000 bytes" in answer.json()["error"]
    assert answer.headers["connection"] == "close"
    # What was too much, and what is thrown away so that the client lives to see the answer.
    assert read <= 17 * 2000 + 2000
    assert limits_of(service).body_bytes == 0


def test_a_length_of_lies_is_refused(service):
    for told in ("9" * 5000, "-1", "1e3", "0x10", ""):
        answer = service.post("/v1/classify", BODY, {"content-length": told})
        assert answer.status_code in (400, 413)
        assert list(answer.json()) == ["error"]
    # Told less than it is: what counts is what comes.
    small = json.dumps({"text": "card " * 1000}).encode()
    assert service.post("/v1/classify", in_chunks(small), {"content-length": "3"}).status_code == 200


def test_a_body_in_chunks_is_one_body(service):
    assert service.post("/v1/classify", in_chunks(BODY, 3)).json()["model"] == "golden"


def test_all_bodies_together_are_bounded(make_service, monkeypatch):
    service = make_service(settings_of(max_body_bytes=1000))
    limits_of(service).body_bytes = 15_990
    answer = service.classify({"text": "card"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert limits_of(service).body_bytes == 15_990


def test_a_body_that_does_not_come_is_not_waited_for(make_service):
    service = make_service(settings_of(read_seconds=0.05))
    answer = service.post("/v1/classify", in_chunks(BODY, 1, wait_seconds=0.03))
    assert (answer.status_code, answer.headers["connection"]) == (408, "close")
    assert "after 0.05 seconds" in answer.json()["error"]
    assert limits_of(service).running == 0


def test_more_texts_than_may_be_are_refused(make_service):
    service = make_service(settings_of(max_texts=2))
    assert service.classify({"texts": ["a", "b"]}).status_code == 200
    answer = service.classify({"texts": ["a", "b", "c"]})
    assert (answer.status_code, "There are 3 texts. Expected: at most 2" in answer.json()["error"]) == (422, True)


def test_long_texts_are_cut_or_refused(make_service):
    service = make_service(settings_of(truncate=False))
    answer = service.classify({"texts": ["card", "card " * 31, "card " * 20]})
    assert answer.status_code == 422
    assert "Text 1 is longer than 32 tokens" in answer.json()["error"]
    assert service.classify({"text": "card " * 30}).json()["predictions"][0]["truncated"] is False


@pytest.mark.parametrize(
    "text",
    [
        "card money price " * 3000,
        "card" * 20_000 + " money",
        "card " + " " * 60_000 + "money " * 3,
        "card, (money) price! " * 2000,
        "\u00e9\u0301 caf\u00e9 \u4f60\u597d " * 3000,
        "card\tmoney\n" * 5000,
    ],
)
def test_the_beginning_of_a_long_text_gives_the_tokens_of_the_whole(text):
    predictor = load(GOLDEN)
    assert predictor.codec.encode_beginnings(["card", text]) == predictor.encode(["card", text])


def test_huge_texts_are_tokenized_beside_the_event_loop(service):
    huge = service.begin("POST", "/v1/classify", {"text": "card " * 600_000})
    small = service.begin("POST", "/v1/classify", {"text": "card"})
    assert small.result(WAIT_SECONDS).status_code == 200
    assert huge.result(WAIT_SECONDS).json()["predictions"][0]["truncated"] is True


def test_requests_past_the_most_are_refused_at_once(make_service, monkeypatch):
    service = make_service(settings_of(max_requests=2))
    gate = service.block(monkeypatch)
    running = [service.begin("POST", "/v1/classify", {"text": "card"}) for _ in range(2)]
    until(lambda: limits_of(service).running == 2)
    answer = service.classify({"text": "card"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert "2 requests are being answered" in answer.json()["error"]
    assert service.get("/v2/health/ready").status_code == 200
    gate.set()
    assert [each.result(WAIT_SECONDS).status_code for each in running] == [200, 200]
    assert service.classify({"text": "card"}).status_code == 200


def test_a_full_queue_refuses_at_once(make_service, monkeypatch):
    service = make_service(settings_of(max_waiting=3, max_batch=1, runners=1))
    gate = service.block(monkeypatch)
    with service.repository.lease("golden") as served:
        batcher = served.batcher
    running = [service.begin("POST", "/v1/classify", {"text": "card"})]
    until(lambda: limits_of(service).running == 1 and batcher.waiting == 0)
    running += [service.begin("POST", "/v1/classify", {"text": "card"}) for _ in range(3)]
    until(lambda: batcher.waiting == 3)
    answer = service.classify({"text": "card"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    gate.set()
    assert [each.result(WAIT_SECONDS).status_code for each in running] == [200] * 4


def test_a_request_past_its_time_leaves_the_queue(make_service, monkeypatch):
    service = make_service(settings_of(request_seconds=0.1, max_batch=1, runners=1))
    gate = service.block(monkeypatch)
    with service.repository.lease("golden") as served:
        batcher = served.batcher
    asked = [service.begin("POST", "/v1/classify", {"text": "card"}) for _ in range(2)]
    for each in asked:
        answer = each.result(WAIT_SECONDS)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "within 0.1 seconds" in answer.json()["error"]
    assert batcher.waiting == 0
    gate.set()
    assert limits_of(service).running == 0


def test_a_client_that_leaves_takes_its_texts_along(make_service, monkeypatch):
    """Told by ASGI messages alone: the body, and later that the client has gone."""
    service = make_service(settings_of(max_batch=1, runners=1))
    gate = service.block(monkeypatch)
    with service.repository.lease("golden") as served:
        batcher = served.batcher
    first = service.begin("POST", "/v1/classify", {"text": "card"})
    until(lambda: limits_of(service).running == 1 and batcher.waiting == 0)

    sent: list[Any] = []
    leaving = asyncio.Event()

    async def leave_early() -> None:
        messages = [{"type": "http.request", "body": BODY, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await leaving.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/classify", "headers": [], "query_string": b""}
        await service.app(scope, receive, send)

    second = service.thread.begin(leave_early())
    until(lambda: batcher.waiting == 1)
    service.thread.loop.call_soon_threadsafe(leaving.set)
    second.result(WAIT_SECONDS)
    assert sent == []
    assert batcher.waiting == 0
    gate.set()
    assert first.result(WAIT_SECONDS).status_code == 200
    assert service.metric('edgetune_requests_total{model="golden",route="classify",status="499"}') == 1


def test_a_connection_that_closes_is_a_client_that_left(make_service, monkeypatch):
    """The same over a real socket, with uvicorn in between."""
    service = make_service(settings_of(max_batch=1, runners=1))
    config = uvicorn.Config(service.app, port=0, log_level="critical", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    monkeypatch.setattr(server, "capture_signals", lambda: __import__("contextlib").nullcontext())
    running = service.thread.begin(server.serve())
    until(lambda: server.started)
    address = server.servers[0].sockets[0].getsockname()
    gate = service.block(monkeypatch)
    with service.repository.lease("golden") as served:
        batcher = served.batcher

    def ask() -> socket.socket:
        connection = socket.create_connection(address, timeout=WAIT_SECONDS)
        head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
        connection.sendall(head.encode() + BODY)
        return connection

    with ask() as stays:
        until(lambda: limits_of(service).running == 1 and batcher.waiting == 0)
        with ask():
            until(lambda: batcher.waiting == 1)
        until(lambda: batcher.waiting == 0 and limits_of(service).running == 1)
        gate.set()
        assert stays.recv(100).startswith(b"HTTP/1.1 200")
    server.should_exit = True
    running.result(WAIT_SECONDS)


def test_a_client_that_only_writes_still_sees_why_it_was_refused(make_service, monkeypatch):
    service = make_service(settings_of(max_body_bytes=500_000))
    config = uvicorn.Config(service.app, port=0, log_level="critical", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    monkeypatch.setattr(server, "capture_signals", lambda: __import__("contextlib").nullcontext())
    running = service.thread.begin(server.serve())
    until(lambda: server.started)
    address = server.servers[0].sockets[0].getsockname()
    with socket.create_connection(address, timeout=WAIT_SECONDS) as connection:
        connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n")
        connection.sendall(bytes(900_000))
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'{"error":"The body is larger than 500,000 bytes.' in answer
    server.should_exit = True
    running.result(WAIT_SECONDS)
