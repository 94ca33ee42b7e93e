"""A real server process: how it starts, when it is ready, what signals do, and that its end loses no request."""

import json
import re
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from edgetune.serve import load

GOLDEN = Path(__file__).parents[3] / "golden" / "bundle-v1"
TEXTS = ["where is my parcel", "i still money card", "my card has not arrived"]

# The bundle opens only when the file named last has appeared.
HELD_BACK = """
import pathlib, sys, time
from edgetune.serve.http import repository
gate, opened = pathlib.Path(sys.argv.pop()), repository.open_proven
def held_back(*arguments):
    while not gate.exists():
        time.sleep(0.02)
    return opened(*arguments)
repository.open_proven = held_back
from edgetune.cli import main
main()
"""


@pytest.fixture(scope="module")
def server(run_server):
    """A server that tests share and do not change."""
    return run_server(f"two={GOLDEN}", "--access-log")


def test_it_says_what_it_serves_when_it_is_ready(server):
    assert server.started.keys() == {"url", "models", "providers", "seconds"}
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
    assert server.started["models"] == {"bundle-v1": "1", "two": "1"}
    assert server.started["providers"] == {"bundle-v1": ["CPUExecutionProvider"], "two": ["CPUExecutionProvider"]}
    assert 0 < server.started["seconds"] < 60
    ready = server.get("/v2/health/ready")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)


def test_its_answers_are_those_of_predict(server):
    expected = load(GOLDEN, threads=1).predict(TEXTS)
    for text, answer in zip(TEXTS, expected, strict=True):
        inputs = [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]
        body = {"inputs": inputs, "outputs": [{"name": "label"}, {"name": "scores"}]}
        answered = httpx.post(server.url + "/v2/models/two/infer", json=body, timeout=20)
        assert answered.status_code == 200, answered.text
        outputs = {output["name"]: output["data"] for output in answered.json()["outputs"]}
        assert outputs["label"] == [answer.label]
        assert outputs["scores"] == pytest.approx(list(answer.scores.values()), abs=1e-5)


def test_a_request_leaves_one_line_in_the_access_log(server, eventually):
    httpx.get(server.url + "/v2", headers={"x-request-id": "look-for-me"}, timeout=20)
    eventually(lambda: "look-for-me" in server.log.read_text())
    lines = [line for line in server.log.read_text().splitlines() if "look-for-me" in line]
    assert len(lines) == 1
    logged = json.loads(lines[0])
    assert (logged["path"], logged["status"], logged["client"]) == ("/v2", 200, "127.0.0.1")


def test_it_lives_before_it_is_ready(run_server, free_port, tmp_path, eventually):
    gate = tmp_path / "gate"
    server = run_server(gate, port=free_port, ready=False, driver=HELD_BACK)

    def lives():
        try:
            return server.get("/v2/health/live").json() == {"live": True}
        except httpx.TransportError:
            return False

    eventually(lives, 30)
    assert server.get("/v2/health/ready").status_code == 503
    assert httpx.post(server.url + "/v2/models/bundle-v1/infer", content=b"{}").status_code in (400, 503)
    gate.touch()
    eventually(lambda: server.get("/v2/health/ready").status_code == 200, 30)
    assert server.leave() == 0
    assert json.loads(server.process.stdout.read())["url"] == server.url


def test_a_signal_while_it_opens_its_bundles(run_server, free_port, tmp_path, eventually):
    gate = tmp_path / "gate"
    server = run_server(gate, port=free_port, ready=False, driver=HELD_BACK)

    def lives():
        try:
            return server.get("/v2/health/live").status_code == 200
        except httpx.TransportError:
            return False

    eventually(lives, 30)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    gate.touch()
    assert server.process.wait(20) == 0
    assert server.process.stdout.read() == ""


class Callers:
    """Threads that ask again and again on connections that stay open, and note how each request ended."""

    def __init__(self, server, count):
        self.answered, self.lost = 0, []
        self._server, self._stop = server, threading.Event()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(count)
        self._ended = [self._pool.submit(self._ask) for _ in range(count)]

    def _ask(self):
        with httpx.Client(timeout=20, verify=False) as client:
            while not self._stop.is_set():
                try:
                    status = client.post(self._server.url + "/v1/classify", json={"texts": TEXTS}).status_code
                except httpx.ConnectError:
                    return  # nobody listens any more: this request was never accepted
                except httpx.TransportError as error:
                    status = repr(error)
                with self._lock:
                    self.answered += status == 200
                    if status != 200:
                        self.lost.append(status)

    def end(self):
        self._stop.set()
        for ended in self._ended:
            ended.result(30)
        self._pool.shutdown()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_accepted_request(run_server, eventually, number):
    server = run_server("--no-access-log")
    callers = Callers(server, 16)
    eventually(lambda: callers.answered > 200)
    began = time.monotonic()
    assert server.leave(number) == 0
    assert time.monotonic() - began < 10
    callers.end()
    assert callers.lost == []
    assert callers.answered > 200
    assert "classify" not in server.log.read_text()
    with pytest.raises(httpx.ConnectError):
        server.get("/v2")


HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
BODY = json.dumps({"texts": TEXTS}).encode()


def read_answer(connection):
    """Status, head and body of the one answer on a connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        assert chunk, received
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    size = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    while len(body) < size:
        body += connection.recv(65536)
    return int(head.split()[1]), head.lower(), body


def test_what_is_under_way_ends_and_nothing_else_begins(run_server, eventually):
    server = run_server()
    with (
        server.connect(HEAD % len(BODY) + BODY[:10]) as slow,
        server.connect(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n") as resting,
        server.connect(b"GET /v2 HTTP/1.1\r\n") as begun,
    ):
        status, head, _ = read_answer(resting)
        assert (status, b"connection: close" in head) == (200, False)
        server.process.send_signal(signal.SIGTERM)
        # Requests that were on their way on an open connection are answered, until one is told that it was the last.
        head, told = b"", []
        while b"connection: close" not in head:
            resting.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            status, head, body = read_answer(resting)
            told.append((status, json.loads(body)["ready"]))
        assert told[-1] == (503, False)
        assert told == sorted(told)  # and not ready never becomes ready again
        assert resting.recv(1) == b""
        eventually(lambda: refuses(server))
        begun.sendall(b"Host: x\r\n\r\n")
        assert read_answer(begun)[0] == 200
        slow.sendall(BODY[10:])
        status, head, body = read_answer(slow)
        assert (status, b"connection: close" in head) == (200, True)
        assert len(json.loads(body)["predictions"]) == 3
    assert server.process.wait(10) == 0


def refuses(server):
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_grace_time_is_kept(run_server):
    server = run_server("--grace-seconds", 0.5)
    with server.connect(HEAD % len(BODY) + BODY[:10]) as slow:
        began = time.monotonic()
        assert server.leave() == 0
        assert 0.4 < time.monotonic() - began < 15
        assert slow.recv(1000) == b""
    assert "not answered within the 0.5 seconds of grace" in server.log.read_text()


def test_a_second_signal_ends_it_at_once(run_server, eventually):
    server = run_server()
    with server.connect(HEAD % len(BODY) + BODY[:10]):
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: refuses(server))
        began = time.monotonic()
        assert server.leave() == 128 + signal.SIGTERM
        assert time.monotonic() - began < 10  # and not the seconds of grace


def test_keys_are_asked_for_and_read_again_on_sighup(run_server, tmp_path, eventually):
    keys = tmp_path / "keys"
    keys.write_text("old-key\ngone-key expires=2020-01-01\n")
    server = run_server("--api-key-file", keys)

    def status(key):
        return server.classify(["a card"], {"authorization": f"Bearer {key}"}).status_code

    assert [status(key) for key in ("old-key", "gone-key", "new-key", "no")] == [200, 401, 401, 401]
    assert server.classify(["a card"]).status_code == 401
    assert server.classify(["a card"], {"x-api-key": "old-key"}).status_code == 200
    assert server.get("/v2/health/ready").status_code == 200
    keys.write_text("new-key\n")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: status("new-key") == 200)
    assert status("old-key") == 401
    keys.write_text("")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: "holds no key" in server.log.read_text())
    assert status("new-key") == 200
    assert "new-key" not in server.log.read_text()
    assert server.leave() == 0


def test_a_server_without_keys_is_asked_by_its_own_names_alone(run_server):
    server = run_server("--allow-host", "models.example", "--allow-origin", "https://app.example")
    origin = {"origin": "https://app.example"}
    for host, status in (("evil.example", 403), ("models.example", 200), (server.url.removeprefix("http://"), 200)):
        answer = server.classify(["card"], {"host": host, **origin})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
    asked = {**origin, "access-control-request-method": "POST"}
    preflight = httpx.options(server.url + "/v1/classify", headers=asked, timeout=20, verify=False)
    assert (preflight.status_code, preflight.content) == (204, b"")


def test_a_changed_folder_is_switched_in_under_load(run_server, tmp_path, eventually):
    folder = tmp_path / "toy"
    shutil.copytree(GOLDEN, folder)
    server = run_server("--watch-seconds", 0.1, bundle=folder)
    callers = Callers(server, 4)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps(manifest | {"created": "2027-01-01T00:00:00+00:00"}), "utf-8")
    eventually(lambda: server.get("/v2/health/ready").json()["models"]["toy"]["version"] == "2")
    before = callers.answered
    eventually(lambda: callers.answered > before + 20)
    callers.end()
    assert callers.lost == []
    assert server.leave() == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for this machine and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here makes a certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return cert, key


def test_https(run_server, certificate):
    import ssl

    cert, key = certificate
    server = run_server("--tls-cert", cert, "--tls-key", key)
    assert server.url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=str(cert))
    answered = httpx.post(server.url + "/v1/classify", json={"texts": TEXTS}, verify=trusting, timeout=20)
    assert answered.status_code == 200
    server.process.send_signal(signal.SIGHUP)
    assert httpx.get(server.url + "/v2", verify=trusting, timeout=20).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https", "http") + "/v2", timeout=20)
    assert server.leave() == 0
