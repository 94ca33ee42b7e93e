"""Shadow mode: a second model is asked what the first one has answered, and nobody waits for it.

A copy of each request waits in a short queue and is asked of the shadow when no request is being answered; what finds
the queue full is dropped and counted. The shadow's answer goes nowhere but into counters and, if asked for, a log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.http.access import VISIT, Visit, visit_of
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.metrics import Metrics
from edgetune.serve.http.reply import JSON

MOST_WAITING = 32
# Of a question or an answer that is kept; longer ones are not asked of the shadow.
MOST_KEPT_BYTES = 1 << 20
IDLE_PAUSE_SECONDS = 0.005
LOGGER = logging.getLogger("edgetune.serve")
# Members of an answer that say what was answered, and not how sure the model was.
_TOLD = ("label", "labels", "entities")


@dataclass(frozen=True)
class Question:
    """A request that was answered: its scope before any route had it, its body, and the answer."""

    scope: Scope
    body: bytes
    answer: bytes
    request_id: str
    model: str
    seconds: float


class Shadow:
    """The wrapper around the routes.

    Args:
        app: that answers.
        model: the shadow's name.
        limits: tell whether a request is being answered.
        metrics: where agreement is counted.
        log: a file of JSON Lines, one an answer; None writes none.
    """

    def __init__(self, app: ASGIApp, *, model: str, limits: Limits, metrics: Metrics, log: Path | None) -> None:
        self._app, self._model = app, model
        self._limits, self._metrics, self._log = limits, metrics, log
        self._waiting: deque[Question] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        before, body, answer = dict(scope), bytearray(), bytearray()
        told = False

        async def hear() -> Message:
            message = await receive()
            if len(body) <= MOST_KEPT_BYTES:
                body.extend(message.get("body", b""))
            return message

        async def tell(message: Message) -> None:
            nonlocal told
            if message["type"] == "http.response.start":
                told = message["status"] == 200 and (b"content-type", JSON) in message["headers"]
            elif told and len(answer) <= MOST_KEPT_BYTES:
                answer.extend(message.get("body", b""))
            await send(message)

        await self._app(scope, hear, tell)
        visit = visit_of(scope)
        fits = max(len(body), len(answer)) <= MOST_KEPT_BYTES
        if told and fits and visit.model and visit.model != self._model:
            seconds = time.perf_counter() - visit.started
            self._keep(Question(before, bytes(body), bytes(answer), visit.request_id, visit.model, seconds))

    def _keep(self, question: Question) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._metrics.observe_shadow(self._model, "dropped")
            return
        self._waiting.append(question)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Ask the shadow what waits, whenever nobody else is being answered."""
        while self._waiting:
            while self._limits.running:
                await asyncio.sleep(IDLE_PAUSE_SECONDS)
            question = self._waiting.popleft()
            begun = time.perf_counter()
            asking = asyncio.create_task(self._ask(question))
            # Not awaited by itself: whatever the shadow raises ends here.
            await asyncio.wait({asking})
            fault = asking.exception()
            if fault is not None:
                LOGGER.warning("shadow %s failed at request %s: %s", self._model, question.request_id, fault)
                self._metrics.observe_shadow(self._model, "failed")
                continue
            answer = asking.result()
            agree = agreement(question.answer, answer)
            outcome = "not_compared" if agree is None else "agreed" if agree else "differed"
            self._metrics.observe_shadow(self._model, outcome)
            if self._log is not None:
                line = self._line(question, answer, agree, time.perf_counter() - begun)
                await asyncio.to_thread(_append, self._log, line)

    async def _ask(self, question: Question) -> bytes:
        """The shadow's answer to a request."""
        visit = Visit(f"shadow-{uuid4().hex}", time.perf_counter(), forced=self._model)
        scope = {**question.scope, VISIT: visit}
        sent, answer, status = False, bytearray(), 0

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # the client of a shadow never leaves
            sent = True
            return {"type": "http.request", "body": question.body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            answer.extend(message.get("body", b""))

        await self._app(scope, receive, send)
        if status != 200:
            raise EdgetuneError(f"it answered {status}")
        return bytes(answer)

    def _line(self, question: Question, answer: bytes, agree: bool | None, seconds: float) -> bytes:
        facts = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": question.request_id,
            "model": question.model,
            "shadow": self._model,
            "agree": agree,
            "answer": answers_in(question.answer),
            "shadow_answer": answers_in(answer),
            "ms": round(1000 * question.seconds, 3),
            "shadow_ms": round(1000 * seconds, 3),
        }
        return msgspec.json.encode(facts) + b"\n"


def agreement(one: bytes, other: bytes) -> bool | None:
    """Whether two answers of a route say the same; None where they hold numbers or vectors, which never quite do."""
    first, second = answers_in(one), answers_in(other)
    return None if first is None or second is None else first == second


def answers_in(body: bytes) -> list[Any] | None:
    """What was answered to each input, without scores; None of an answer without labels or texts."""
    try:
        value = msgspec.json.decode(body, type=dict[str, Any])
    except NOT_JSON:
        return None
    told: list[Any] = [_plain(one) for one in value.get("predictions", [])]
    told += [one.get("text", one.get("message", {}).get("content")) for one in value.get("choices", [])]
    told += [one.get("data") for one in value.get("outputs", []) if one.get("datatype") == "BYTES"]
    return told if told and None not in told else None


def _plain(prediction: dict[str, Any]) -> Any:
    name = next((name for name in _TOLD if name in prediction), None)
    if name != "entities":
        return prediction.get(name) if name else None
    return [(span["type"], span["start"], span["end"]) for span in prediction["entities"]]


def _append(path: Path, line: bytes) -> None:
    """One write, so that lines of several workers do not mix."""
    with path.open("ab", buffering=0) as stream:
        stream.write(line)
