"""What clients do to a server, on purpose or by accident: each ends in its time, and others are answered meanwhile."""

import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

GOLDEN = Path(__file__).parents[3] / "golden" / "bundle-v1"
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(run_server):
    """A server with short times and small limits."""
    limits = ("--read-seconds", 1, "--request-seconds", 2, "--max-waiting", 8, "--max-connections", 60)
    return run_server(*limits)


@pytest.fixture(autouse=True)
def goes_on(server, eventually):
    """After every fault the server runs, answers, holds nothing of it, and met no bug."""
    yield
    assert server.process.poll() is None
    # Until it has seen that connections were closed, it may say that they are too many.
    eventually(lambda: server.classify(["a card"]).status_code == 200)
    eventually(lambda: gauges(server) == {"edgetune_requests_running": 0, "edgetune_body_bytes": 0})
    assert "Traceback" not in server.log.read_text()


def gauges(server):
    """What is under way now."""
    lines = server.get("/metrics").text.splitlines()
    pairs = dict(line.split() for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(pairs[name]) for name in ("edgetune_requests_running", "edgetune_body_bytes")}


def drip(connection, content, began, pause=0.1, most=90):
    """Send one byte after the other, or none, until the server has closed; returns what it said, and after how long.

    Bytes are counted, and not seconds, in which test and server may have had to wait for their processor: a server that
    goes by its own ten seconds still reads after `most`. `began` is a time before the server's clock began.
    """
    received = b""
    connection.settimeout(pause)
    for place in range(most):
        try:
            connection.sendall(content[place % len(content) :][:1] if content else b"")
            chunk = connection.recv(65536)
            if not chunk:
                break
            received += chunk
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    else:
        pytest.fail(f"it still reads after {most} bytes; it said {received!r}")
    return received, time.monotonic() - began


@pytest.mark.parametrize(
    "content",
    [
        b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 500,
        b"\r\n" * 500,
    ],
)
def test_a_head_that_never_ends_is_cut_off(server, content):
    began = time.monotonic()
    with server.connect() as connection:
        received, seconds = drip(connection, content, began)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert seconds > 0.9


def test_a_head_that_never_ends_after_an_answered_request(server):
    with server.connect(GET) as connection:
        answer = b""
        while not answer.endswith(b'{"live":true}'):  # head and body may come apart
            answer += connection.recv(65536) or pytest.fail(f"closed after {answer!r}")
        assert answer.startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        received, seconds = drip(connection, b"GET /v2 HTTP/1.1\r\nX-Slow: " + b"a" * 500, began)
    assert seconds > 0.9
    assert received.startswith(b"HTTP/1.1 408 ")


def test_silence_is_cut_off(server):
    began = time.monotonic()
    with server.connect() as connection:
        received, seconds = drip(connection, b"", began)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert seconds > 0.9


@pytest.mark.parametrize(
    "begin",
    [
        POST + b"Content-Length: 5000\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1388\r\n",
        POST.replace(b"/v1/classify", b"/no/such/route") + b"Content-Length: 5000\r\n\r\n",
        GET[:-2] + b"Content-Length: 5000\r\n\r\n",
    ],
)
def test_a_body_that_never_ends_is_cut_off(server, begin):
    began = time.monotonic()
    with server.connect(begin) as connection:
        received, seconds = drip(connection, b"a" * 500, began)
    assert seconds > 0.9
    assert received[:13] in (b"HTTP/1.1 408 ", b"HTTP/1.1 404 ", b"HTTP/1.1 200 ")


def test_slow_clients_keep_nobody_waiting(server):
    slow = [server.connect(POST + b"Content-Length: 5000\r\n\r\n{") for _ in range(40)]
    began = time.monotonic()
    assert [server.classify(["a card"]).status_code for _ in range(10)] == [200] * 10
    assert time.monotonic() - began < 30  # waiting for each in turn would take forty
    for connection in slow:
        connection.settimeout(20)
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        connection.close()


def test_a_head_without_end_at_full_speed_takes_no_memory(server):
    with server.connect(b"GET /v2 HTTP/1.1\r\n") as connection:
        sent = 0
        try:
            while sent < 50_000_000:
                sent += connection.send(b"X-Many: " + b"a" * 1000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert sent < 20_000_000


def test_a_large_body_in_one_piece_is_no_large_head(server):
    body = b'{"texts":["' + b"card " * 40_000 + b'"]}'
    with server.connect(POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)) as connection:
        received = b""
        while not received.endswith(b"}"):  # head and body may come apart
            received += connection.recv(65536) or pytest.fail(f"closed after {received!r}")
        assert received.startswith(b"HTTP/1.1 200 ")
        connection.sendall(GET)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_trailers_and_pipelined_requests(server):
    body = b'{"texts":["a card"]}'
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nX-Trailer: y\r\n\r\n" % (len(body), body)
    with server.connect(chunked + GET + GET) as connection:
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 3:
            chunk = connection.recv(65536)
            assert chunk, received
            received += chunk
    assert received.index(b"predictions") < received.index(b"live")


def test_what_is_no_http(server):
    for content in (
        b"\x16\x03\x01\x02\x00\x01\x00" * 20,
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        with server.connect(content) as connection:
            received = connection.recv(65536)
            assert received.startswith(b"HTTP/1.1 400 ")
            assert b'{"error":' in received


def test_clients_that_leave_mid_request(server):
    whole = POST + b"Content-Length: 20\r\n\r\n" + b'{"texts":["a card"]}'
    for place in range(1, len(whole) + 1, 7):
        for hard in (False, True):
            connection = server.connect(whole[:place])
            if hard:  # a reset instead of a farewell
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()


def test_too_many_connections_are_told_so(run_server):
    roomy = run_server("--max-connections", 60, "--read-seconds", 100)  # silence ends none of them meanwhile
    held, refused = {roomy.connect() for _ in range(80)}, set()
    until = time.monotonic() + 30
    while len(refused) < 20 and time.monotonic() < until:
        told, _, _ = select.select(held - refused, [], [], 1)
        assert all(connection.recv(65536).startswith(b"HTTP/1.1 503 ") for connection in told)
        refused |= set(told)
    assert select.select(held - refused, [], [], 0.2)[0] == []
    for connection in held:
        connection.close()
    assert len(refused) == 20


def test_a_full_queue_refuses_at_once(server):
    answered = server.classify(["a card"] * 9)
    assert (answered.status_code, "retry-after" in answered.headers) == (503, True)
    with ThreadPoolExecutor(32) as pool:
        ended = [one.status_code for one in pool.map(lambda _: server.classify(["a card"] * 8), range(200))]
    assert set(ended) <= {200, 503}
    assert ended.count(200) >= 1


TRICKS = ["..", ".", "%2e%2e", "..%2fetc", "%2fetc%2fpasswd", "a%00b", "%ff%fe", "bundle-v1%2f..", "x" * 5000]


@pytest.mark.parametrize("name", TRICKS)
@pytest.mark.parametrize("end", ["", "/ready", "/infer", "/versions/..%2f1"])
def test_path_tricks_in_names(server, name, end):
    method = b"POST" if end == "/infer" else b"GET"
    head = b"%b /v2/models/%b%b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    with server.connect(head % (method, name.encode(), end.encode())) as connection:
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received[:13] in (b"HTTP/1.1 404 ", b"HTTP/1.1 405 ", b"HTTP/1.1 400 ", b"HTTP/1.1 422 ")
    assert b'{"error":' in received


def test_a_second_server_on_the_port_says_so(server, run_server):
    port = server.address[1]
    second = run_server(port=port, ready=False)
    assert second.process.wait(30) == 1
    assert f"Error: Nothing can listen on port {port} of 127.0.0.1: Address already in use." in second.log.read_text()
    assert second.process.stdout.read() == ""
    assert httpx.get(server.url + "/v2", timeout=20).status_code == 200
