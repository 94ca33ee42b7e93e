"""Places, queue and time of generated answers: each bound is reached and told, and who leaves makes room at once."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LONG = {"prompt": "the card", "max_tokens": 200, "temperature": 0}
# Of each run, where an answer must last: LONG takes twenty seconds then, and nobody who leaves waits half as long.
SLOW, SOON = 0.1, 8


def begin(server: Any, body: dict[str, Any], path: str = TEXT) -> socket.socket:
    """A request on a plain connection, whose answer nobody has read yet."""
    content = json.dumps(body).encode()
    address = server.url.rpartition("/")[2].split(":")
    connection = socket.create_connection((address[0], int(address[1])), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    found = b""
    while wanted not in found:
        chunk = connection.recv(65536)
        assert chunk, found
        found += chunk
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place_at_once(run_server, slowed, eventually, stream):
    server = run_server(max_sequences=1)
    slowed(server, SLOW)
    with begin(server, {**LONG, "stream": stream}) as connection:
        if stream:
            assert read_until(connection, b"data: ").startswith(b"HTTP/1.1 200")
        eventually(lambda: server.scheduler.running == 1)
    eventually(lambda: server.scheduler.running == 0, SOON)
    eventually(lambda: server.limits.running == 0, SOON)
    # What an answer takes, and not what the one that was left would have taken.
    assert server.post(TEXT, {**LONG, "max_tokens": 2}).status_code == 200
    left = 'edgetune_requests_total{model="tiny",route="completions",status="499"}'
    eventually(lambda: server.metric(left) == 1)


def test_a_client_that_leaves_takes_its_prompt_out_of_the_queue(run_server, slowed, eventually):
    server = run_server(max_sequences=1)
    slowed(server, SLOW)
    with begin(server, LONG):
        eventually(lambda: server.scheduler.running == 1)
        with begin(server, LONG):
            eventually(lambda: server.scheduler.waiting == 1)
        eventually(lambda: server.scheduler.waiting == 0, SOON)
        assert server.scheduler.running == 1


def test_the_client_library_closes_a_stream(run_server, slowed, eventually, in_loop):
    server = run_server()
    slowed(server, SLOW)

    async def leave() -> None:
        async with server.async_client() as client:
            events = await client.completions.create(model="tiny", stream=True, **LONG)
            async for _ in events:
                break
            await events.close()

    in_loop(leave())
    eventually(lambda: server.scheduler.running == 0 and server.limits.running == 0, SOON)


def test_a_full_queue_is_told_with_when_to_come_back(run_server, slowed, eventually):
    server = run_server(max_sequences=1, max_prompts=1)
    slowed(server, SLOW)
    with begin(server, LONG):
        eventually(lambda: server.scheduler.running == 1)
        with begin(server, LONG):
            eventually(lambda: server.scheduler.waiting == 1)
            for stream in (False, True):
                answer = server.post(TEXT, {**LONG, "stream": stream})
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                error = answer.json()["error"]
                assert (error["type"], error["code"], error["param"]) == ("server_error", "unavailable", None)
            with server.client() as client, pytest.raises(openai.InternalServerError, match="ask again"):
                client.completions.create(model="tiny", **LONG)
            assert server.metric('edgetune_queue_texts{model="tiny"}') == 1
    eventually(lambda: server.scheduler.running == 0, SOON)
    assert server.post(TEXT, {**LONG, "max_tokens": 1}).status_code == 200


def test_too_many_at_once_are_refused(run_server, slowed, eventually):
    server = run_server(max_requests=1)
    slowed(server, SLOW)
    with begin(server, {**LONG, "stream": True}) as connection:
        read_until(connection, b"data: ")
        with server.client() as client, pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(model="tiny", **LONG)
        assert (caught.value.type, caught.value.code) == ("rate_limit_error", "rate_limit_exceeded")
        assert caught.value.response.headers["retry-after"] == "1"
    eventually(lambda: server.limits.running == 0, SOON)


def test_an_answer_past_its_time_ends(run_server, slowed, eventually):
    server = run_server(generation_seconds=1.5)
    slowed(server, SLOW)
    answer = server.post(TEXT, LONG)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "within 1.5 seconds" in answer.json()["error"]["message"]
    eventually(lambda: server.scheduler.running == 0, SOON)
    with server.client() as client:
        told = []
        with pytest.raises(openai.APIError, match=r"within 1\.5 seconds"):
            told.extend(client.completions.create(model="tiny", stream=True, **LONG))
    assert told
    eventually(lambda: server.scheduler.running == 0 and server.limits.running == 0, SOON)


def test_generation_has_more_time_than_other_requests(run_server, slowed):
    server = run_server(request_seconds=0.5, read_seconds=0.5)
    slowed(server, 0.05)
    body = {**LONG, "max_tokens": 40, "stream": True}
    begun = time.monotonic()
    answer = server.post(TEXT, body)
    assert time.monotonic() - begun > 1.5
    assert answer.text.endswith("data: [DONE]\n\n")


def test_a_stream_is_events_line_by_line(server):
    answer = server.post(CHAT, {"messages": [{"role": "user", "content": "card"}], "max_tokens": 3, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    *events, end, nothing = answer.text.split("\n\n")
    assert (end, nothing) == ("data: [DONE]", "")
    assert all(event.startswith("data: {") and "\n" not in event for event in events)
    assert {json.loads(event[6:])["object"] for event in events} == {"chat.completion.chunk"}


def test_answers_join_and_leave_while_others_go_on(run_server, slowed, eventually):
    server = run_server(max_sequences=2)
    pace = slowed(server, SLOW)
    with begin(server, {**LONG, "stream": True}) as connection, ThreadPoolExecutor(1) as pool:
        read_until(connection, b"data: ")
        short = pool.submit(server.post, TEXT, {**LONG, "max_tokens": 3})
        assert short.result(60).status_code == 200
        eventually(lambda: server.scheduler.running == 1)  # the answer is there a moment before its place is free
        pace.seconds = 0
        rest = read_until(connection, b"data: [DONE]")
    assert rest.count(b"data: ") > 20


def test_a_client_that_does_not_read_holds_its_place_no_longer_than_its_answer(run_server, slowed, eventually):
    server = run_server(max_sequences=1)
    pace = slowed(server, SLOW)
    with begin(server, {**LONG, "stream": True, "logprobs": 20}) as connection:
        eventually(lambda: server.scheduler.running == 1)
        pace.seconds = 0.005
        eventually(lambda: server.scheduler.running == 0)
        assert server.post(TEXT, {**LONG, "max_tokens": 2}).status_code == 200
        assert read_until(connection, b"data: [DONE]").count(b"data: ") > 20


def test_the_event_loop_is_free_while_prompts_are_read(run_server, monkeypatch):
    server = run_server()
    generator = server.scheduler.generator
    reading, gate = threading.Event(), threading.Event()
    encode = generator.encode

    def held(text: str) -> list[int]:
        reading.set()
        gate.wait(60)
        return list(encode(text))

    monkeypatch.setattr(generator, "encode", held)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, TEXT, {**LONG, "max_tokens": 2})
        assert reading.wait(60)
        assert server.get("/v2/health/live").status_code == 200
        gate.set()
        assert asked.result(60).status_code == 200


def test_a_bundle_that_is_switched_fails_no_answer(run_server, slowed, eventually):
    server = run_server()
    pace = slowed(server, SLOW)
    before = server.scheduler
    with begin(server, {**LONG, "stream": True}) as connection:
        read_until(connection, b"data: ")
        server.thread.wait(server.repository.load("tiny"))
        assert server.scheduler is not before
        pace.seconds = 0
        assert b"data: [DONE]" in read_until(connection, b"[DONE]")
    eventually(lambda: before.generator.decoder.providers == [])
    assert server.post(TEXT, {**LONG, "max_tokens": 2}).status_code == 200


def test_two_streams_of_one_client_do_not_mix(run_server, slowed, in_loop):
    server = run_server()
    slowed(server, 0.005)

    async def read(client: openai.AsyncOpenAI, tokens: int) -> str:
        events = await client.completions.create(**{**LONG, "model": "tiny", "max_tokens": tokens}, stream=True)
        return "".join([event.choices[0].text async for event in events])

    async def both() -> list[str]:
        async with server.async_client() as client:
            return list(await asyncio.gather(read(client, 40), read(client, 20)))

    longer, shorter = in_loop(both())
    assert longer.startswith(shorter)
    assert len(longer) > len(shorter) > 10
