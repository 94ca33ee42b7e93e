"""The server's application around the golden bundle, asked without a socket: httpx straight into ASGI."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from edgetune.serve.http.app import create_app
from edgetune.serve.http.keys import Keys
from edgetune.serve.http.metrics import Metrics
from edgetune.serve.http.repository import Repository
from edgetune.serve.http.settings import ServerSettings

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "bundle-v1"
WAIT_SECONDS = 20


class LoopThread:
    """An event loop in a thread, for tests that ask it from outside."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.begin(work).result(WAIT_SECONDS)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_SECONDS)
        self.loop.close()


@dataclass
class Service:
    """An application with its repository, asked as a client would."""

    app: Starlette
    repository: Repository
    metrics: Metrics
    thread: LoopThread
    headers: dict[str, str] = field(default_factory=dict)

    async def ask_async(self, method: str, path: str, body: Any = None, headers: Any = None) -> httpx.Response:
        """`body` is sent as JSON, unless it is bytes or an asynchronous iterator of them."""
        content = body if body is None or isinstance(body, bytes) or hasattr(body, "__aiter__") else None
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://server") as client:
            return await client.request(
                method,
                path,
                content=content,
                json=body if content is None else None,
                headers={**self.headers, **(headers or {})},
            )

    def begin(self, method: str, path: str, body: Any = None, headers: Any = None) -> Future[httpx.Response]:
        return self.thread.begin(self.ask_async(method, path, body, headers))

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None) -> httpx.Response:
        return self.begin(method, path, body, headers).result(WAIT_SECONDS)

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def post(self, path: str, body: Any = None, headers: Any = None) -> httpx.Response:
        return self.ask("POST", path, body, headers)

    def classify(self, body: Any) -> httpx.Response:
        return self.post("/v1/classify", body)

    def infer(self, body: Any, headers: Any = None) -> httpx.Response:
        return self.post("/v2/models/golden/infer", body, headers)

    def block(self, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
        """Let no run of the graph end before the event is set (or the test's patience ends)."""
        gate = threading.Event()
        with self.repository.lease("golden") as served:
            run = served.predictor.run

        def blocked(feed: Any) -> Any:
            gate.wait(WAIT_SECONDS)
            return run(feed)

        monkeypatch.setattr(served.predictor, "run", blocked)
        return gate

    def metric(self, line: str) -> float:
        """The value of one line of the metrics page, 0 where there is none."""
        page = self.get("/metrics").text.splitlines()
        return float(next((each.rpartition(" ")[2] for each in page if each.startswith(line + " ")), 0))


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="module")
def make_service(loop_thread: LoopThread) -> Iterator[Callable[..., Service]]:
    """`make_service(settings, keys=..., sources=...)`: by default the golden bundle, served as "golden"."""
    made: list[Repository] = []

    def make(
        settings: ServerSettings | None = None, keys: Keys | None = None, sources: dict[str, Path] | None = None
    ) -> Service:
        settings = settings or ServerSettings(watch_seconds=0)
        metrics = Metrics()
        repository = Repository(sources or {"golden": GOLDEN}, settings, observe=metrics.observe_run)
        loop_thread.wait(repository.start())
        made.append(repository)
        return Service(create_app(repository, settings, keys=keys, metrics=metrics), repository, metrics, loop_thread)

    yield make
    for repository in made:
        loop_thread.wait(repository.close(1))


def until(reached: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """`eventually(lambda: condition, seconds=20)` waits until the condition holds, and fails if it never does."""
    return until


@pytest.fixture(scope="module")
def service(make_service: Callable[..., Service]) -> Service:
    """The golden bundle with default limits, for tests that leave it as it is."""
    return make_service()


@pytest.fixture
def complaints() -> Callable[[Any], tuple[list[str], int]]:
    """`complaints(schema)` runs a fuzzing client in all its phases (examples, coverage, fuzzing, sequences).

    It gives what was found wrong, with the request that shows it, and how many requests were made.
    """
    import schemathesis
    from schemathesis.engine.events import FatalError, FuzzScenarioFinished, NonFatalError, ScenarioFinished

    def told(label: str, check: Any) -> str:
        return f"{label}: {check.name}: {check.failure_info.failure}: {check.failure_info.code_sample}"

    def run(schema: Any) -> tuple[list[str], int]:
        found, requests = [], 0
        for event in schemathesis.engine.from_schema(schema).execute():
            assert not isinstance(event, NonFatalError | FatalError), event
            if isinstance(event, ScenarioFinished | FuzzScenarioFinished):
                requests += len(event.recorder.interactions)
                found += [
                    told(event.recorder.label, check)
                    for checks in event.recorder.checks.values()
                    for check in checks
                    if check.failure_info is not None
                ]
        return found, requests

    return run
