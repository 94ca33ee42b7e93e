"""`edgetune serve` in a process of its own on a free port of the loopback, bounded in time, killed at the end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

GOLDEN = Path(__file__).parents[3] / "golden" / "bundle-v1"
COMMAND = "from edgetune.cli import main; main()"
MOST_SECONDS = 300
NO_TLS = False  # else httpx reads all certificate authorities for every request


@dataclass
class RunningServer:
    """A server process: what it printed when it was ready, and where it writes its log."""

    process: subprocess.Popen[str]
    log: Path
    url: str
    started: dict[str, Any]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a socket."""
        host, port = self.url.rpartition("/")[2].split(":")
        return host, int(port)

    def connect(self, content: bytes = b"") -> socket.socket:
        """A plain connection, with something sent on it already."""
        connection = socket.create_connection(self.address, timeout=20)
        connection.sendall(content)
        return connection

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=20, verify=NO_TLS)

    def classify(self, texts: list[str], headers: dict[str, str] | None = None) -> httpx.Response:
        return httpx.post(self.url + "/v1/classify", json={"texts": texts}, timeout=20, headers=headers, verify=NO_TLS)

    def leave(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


RunServer = Callable[..., RunningServer]


@pytest.fixture(scope="module")
def run_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunServer]:
    """`run_server("--read-seconds", 1, bundle=GOLDEN)` starts a server and returns when it is ready.

    With `ready=False` it returns at once. `driver` is the code that runs the command line.
    """
    running: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def run(
        *arguments: object, bundle: Path = GOLDEN, ready: bool = True, driver: str = COMMAND, port: int = 0
    ) -> RunningServer:
        log = tmp_path_factory.mktemp("server") / "log"
        given = ["serve", bundle, "--port", port, "--json", "--threads", 1, "--watch-seconds", 0, *arguments]
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", driver, *map(str, given)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stream, text=True, encoding="utf-8",
            )  # fmt: skip
        timer = threading.Timer(MOST_SECONDS, process.kill)
        timer.start()
        running.append((process, timer))
        if not ready:
            return RunningServer(process, log, f"http://127.0.0.1:{port}", {})
        assert process.stdout is not None
        printed = ""
        while not printed.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, log.read_text()  # it has ended
            printed += line
        started = json.loads(printed)
        return RunningServer(process, log, started["url"], started)

    yield run
    for process, timer in running:
        timer.cancel()
        process.kill()
        process.communicate()


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """`eventually(lambda: condition, seconds=60)` waits until the condition holds, and fails if it never does."""

    def wait(condition: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.02)

    return wait
