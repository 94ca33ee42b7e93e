"""Requests that also offer HTTP/2 (curl --http2, Java's HttpClient) are answered by HTTP/1.1, body and all."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

BODY = b'{"texts":["where is my parcel"]}'
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def server(run_server):
    return run_server("--read-seconds", 5)


def _post(headers: bytes = b"", body: bytes = BODY) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST /v1/classify HTTP/1.1\r\nHost: x\r\n" + UPGRADE + headers + length + b"\r\n" + body


def _received(connection, answers: int) -> bytes:
    received = b""
    while received.count(b"HTTP/1.1 ") < answers or not received.endswith((b"}", b"]")):
        chunk = connection.recv(65536)
        assert chunk, received
        received += chunk
    return received


@pytest.mark.parametrize("pieces", [1, 2, 500])
def test_the_body_behind_an_upgrade_is_read(server, pieces):
    content = _post()
    size = -(-len(content) // pieces)
    with server.connect() as connection:
        for start in range(0, len(content), size):
            connection.sendall(content[start : start + size])
        assert b"HTTP/1.1 200 OK" in (received := _received(connection, 1))
        assert b'"label":"delivery"' in received
        # The connection goes on as it was.
        connection.sendall(_post())
        assert b'"label":"delivery"' in _received(connection, 1)
        connection.sendall(GET + b"\r\n")
        assert b'{"live":true}' in _received(connection, 1)


def test_chunked_and_pipelined_requests_with_an_upgrade(server):
    chunks = b"%x\r\n%b\r\n0\r\nX-Trailer: y\r\n\r\n" % (len(BODY), BODY)
    chunked = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    with server.connect(chunked + GET + UPGRADE + b"\r\n" + _post() + GET + b"\r\n") as connection:
        received = _received(connection, 4)
    assert received.count(b"HTTP/1.1 200 OK") == 4
    assert received.count(b'"label":"delivery"') == 2
    assert received.count(b'{"live":true}') == 2


def test_a_thousand_upgrades_in_one_piece(server):
    with server.connect((GET + UPGRADE + b"\r\n") * 1000) as connection:
        assert _received(connection, 1000).count(b'{"live":true}') == 1000


def test_what_else_the_connection_header_says_still_holds(server):
    closing = _post().replace(b"Connection: Upgrade, HTTP2-Settings", b"Connection: close, Upgrade, HTTP2-Settings")
    with server.connect(closing) as connection:
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert b'"label":"delivery"' in received
    assert b"connection: close" in received


def test_another_protocol_than_http_2_is_not_taken_up_either(server):
    asked = _post().replace(b"Upgrade: h2c", b"Upgrade: websocket")
    with server.connect(asked) as connection:
        assert b'"label":"delivery"' in _received(connection, 1)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("path", ["/v1/classify", "/v2/models/bundle-v1/infer"])
def test_curl_with_http_2(server, path):
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["where is my parcel"]}
    body = BODY.decode() if path == "/v1/classify" else json.dumps({"inputs": [tensor]})
    ended = subprocess.run(
        ["curl", "-s", "--http2", "--max-time", "60", server.url + path, "-d", body], capture_output=True, check=True
    )
    assert b"delivery" in ended.stdout


def test_what_the_protocol_refuses_itself_is_counted_and_logged(server, eventually):
    for content, status in ((b"GET\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, 431)):
        with server.connect(content) as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 %d " % status)
        line = f'edgetune_requests_total{{model="",route="protocol",status="{status}"}} 1.0'
        assert line in server.get("/metrics").text.splitlines()
    assert 'edgetune_errors_total{kind="malformed",model="",route="protocol"} 1.0' in server.get("/metrics").text

    def lines():
        return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]

    eventually(lambda: [line["status"] for line in lines() if not line["path"]] == [400, 431])
    assert all(line["client"] == "127.0.0.1" for line in lines() if not line["path"])


def test_a_head_that_never_comes_is_counted(run_server, eventually):
    server = run_server("--read-seconds", 0.5)
    with server.connect(b"GET / HTTP/1.1\r\n") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
    assert 'edgetune_errors_total{kind="slow",model="",route="protocol"} 1.0' in server.get("/metrics").text
