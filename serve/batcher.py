"""Joins concurrent calls into runs of the graph, so that throughput rises with the load and a lone call pays nothing.

Nothing is ever delayed to wait for company: a call that finds a free runner goes at once, and what arrives while the
runners are busy waits and goes together, so the wait is that of a run and adapts to the load by itself.
Imported only where it is used: it brings asyncio, which a cold start does without.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import EdgetuneError, InputError
from edgetune.serve.forks import watch_forks
from edgetune.serve.heads import PER_TOKEN
from edgetune.serve.waiting import Call, Part, WaitingLine, split_call

if TYPE_CHECKING:
    from edgetune.serve.predictor import Predictor

    Logits = NDArray[np.float32]
    Outcome = Logits | Exception

# How long `close` finishes what waits where the caller names no bound, and how long an ending interpreter waits for the
# runs that are going on: a thread that leaves the graph after Python has gone would take the process down.
CLOSE_SECONDS = 30.0
EXIT_SECONDS = 5.0

_open: weakref.WeakSet[Batcher] = weakref.WeakSet()


@dataclass(frozen=True)
class BatchRun:
    """One run of the graph, as it was.

    Attributes:
        texts: answered in it.
        tokens: of these texts.
        padded_tokens: texts times the width that they were padded to.
        waited_seconds: of each call in it, from its arrival to the start of the run.
        seconds: that the run took.
    """

    texts: int
    tokens: int
    padded_tokens: int
    waited_seconds: tuple[float, ...]
    seconds: float


class Batcher:
    """Answers calls from many threads and tasks in joint runs.

    The next run takes the oldest call that waits and others of like length, so padding is bounded and nobody starves.
    A dynamic int8 graph takes its scales over the whole batch, so close answers depend a little on the neighbours, and
    thereby on the load; with `max_batch=1` each text runs alone and its answer depends on nothing else.

    Attributes:
        predictor: what answers.
        runners: threads that run the graph, each one run at a time.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        max_batch: int = 32,
        max_waiting: int = 1024,
        runners: int | None = None,
        observe: Callable[[BatchRun], None] | None = None,
        lone: Predictor | None = None,
    ) -> None:
        """Prepare to answer; threads start with the first call.

        Args:
            predictor: what answers.
            max_batch: texts in one run.
            max_waiting: texts that may wait, all calls together.
            runners: runs at the same time; None takes as many as the usable cores hold, each with the predictor's
                threads, and one on a GPU.
            observe: told of each run in the runner's thread, before its callers are answered.
            lone: the same graph opened with more threads, for the runs of a caller who has been alone for a while;
                None lets `predictor` do these too.

        Raises:
            InputError: a number below 1.
        """
        for name, number in {"max_batch": max_batch, "max_waiting": max_waiting, "runners": runners}.items():
            if number is not None and number < 1:
                raise InputError(f"{name} is {number}.", expected="1 or more")
        self.predictor = predictor
        self.runners = default_runners(predictor) if runners is None else runners
        self._max_batch, self._observe, self._lone = max_batch, observe, lone or predictor
        self._max_waiting = max_waiting
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        """An empty queue, and no thread yet that takes from it."""
        self._line = WaitingLine(self._max_batch, self._max_waiting, self.runners)
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        # A batcher that is forgotten must not leave its threads behind.
        self._forgotten = weakref.finalize(self, self._line.close)
        self._forgotten.atexit = False

    def after_fork(self) -> None:
        """In a forked child: its threads and whoever waits for them are the parent's."""
        closed = self._line.closed
        self._forgotten.detach()
        self._begin()
        _open.discard(self)
        if closed:
            self._line.close()

    @property
    def waiting(self) -> int:
        """Texts in the queue now, those in a run not counted."""
        return self._line.texts

    def submit(self, texts: Sequence[EncodedText]) -> Future[Logits]:
        """Ask for the logits of texts: (texts, width) float32, in order. A cancelled future leaves the queue.

        Raises:
            Overloaded: they do not fit into the queue.
            InputError: there is no text.
            EdgetuneError: the batcher is closed.
        """
        future = _SubmittedFuture()
        call = Call(self, future, None, perf_counter())
        future.call = call
        self._enqueue(call, texts)
        return future

    async def logits(self, texts: Sequence[EncodedText]) -> Logits:
        """As `submit`, awaited: (texts, width) float32. A cancelled task leaves the queue."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Logits] = loop.create_future()
        call = Call(self, future, loop, perf_counter())
        self._enqueue(call, texts)
        try:
            return await future
        except asyncio.CancelledError:
            self._line.withdraw(call)
            raise

    def close(self, *, seconds: float | None = None) -> None:
        """Let no call in any more, finish what waits, and stop the threads.

        Args:
            seconds: at most; None is CLOSE_SECONDS. What still waits then is told that the batcher is closed; a run
                that is going on cannot be stopped and answers its callers when it ends.
        """
        self._line.close()
        self._join(CLOSE_SECONDS if seconds is None else seconds)
        self._refuse_waiting()
        _open.discard(self)

    def _join(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))

    def _refuse_waiting(self) -> None:
        error = EdgetuneError("The batcher was closed before this call was answered.", action="open the bundle again")
        _deliver([(call, error) for call in self._line.drain()])

    def _enqueue(self, call: Call, texts: Sequence[EncodedText]) -> None:
        if not texts:
            raise InputError("There is no text to answer.", expected="at least one text")
        parts = split_call(call, texts, self._max_batch)
        if len(parts) > 1:
            call.logits = self._room(texts)
        self._line.add(call, parts, len(texts))
        if not self._threads:
            self._start()

    def _room(self, texts: Sequence[EncodedText]) -> Logits:
        """Where the logits of a call that is answered in several runs come together."""
        head = self.predictor.head
        if head.spec.kind in PER_TOKEN:
            return np.zeros((len(texts), max(text.size for text in texts), head.width), dtype=np.float32)
        return np.empty((len(texts), head.width), dtype=np.float32)

    def _start(self) -> None:
        with self._starting:
            if self._threads:
                return
            atexit.unregister(_abandon_all)
            atexit.register(_abandon_all)
            _open.add(self)
            names = [f"edgetune-run-{number}" for number in range(self.runners)]
            threads = [threading.Thread(target=_answer, args=(self._line,), name=name, daemon=True) for name in names]
            for thread in threads:
                thread.start()
            self._threads = threads

    def run(self, parts: Sequence[Part], *, alone: bool) -> None:
        """Answer parts in one run, or each by itself where they fail together: a fault reaches its caller only."""
        try:
            outcomes = self._finished(parts, self._logits(parts, self._lone if alone else self.predictor))
        except Exception as error:  # noqa: BLE001 (whatever a run raises belongs to the callers in it)
            if len(parts) > 1:
                for part in parts:
                    self.run([part], alone=alone)
                return
            if self._line.fail(parts[0].call):
                _deliver([(parts[0].call, error)])
            return
        _deliver(outcomes)

    def _logits(self, parts: Sequence[Part], predictor: Predictor) -> Logits:
        texts = parts[0].texts if len(parts) == 1 else [text for part in parts for text in part.texts]
        feed = predictor.feed(texts)
        begun = perf_counter()
        logits = predictor.run(feed)
        if self._observe is not None:
            seconds = perf_counter() - begun
            tokens, widest = sum(part.shape.tokens for part in parts), max(part.shape.widest for part in parts)
            waited = tuple(begun - part.call.since for part in parts)
            self._tell(self._observe, BatchRun(len(texts), tokens, len(texts) * widest, waited, seconds))
        return logits

    @staticmethod
    def _tell(observe: Callable[[BatchRun], None], run: BatchRun) -> None:
        try:
            observe(run)
        except Exception:
            logging.getLogger(__name__).exception("the observer of the batcher failed")

    def _finished(self, parts: Sequence[Part], logits: Logits) -> list[tuple[Call, Outcome]]:
        """The calls whose last texts were in this run, with their logits."""
        finished: list[tuple[Call, Outcome]] = []
        start = 0
        for part in parts:
            call, stop = part.call, start + len(part.texts)
            if part.rows is None or call.logits is None:
                finished.append((call, logits[start:stop]))
            else:
                own = logits[start:stop]
                if own.ndim == 2:
                    call.logits[part.rows] = own
                else:  # of each token: the run was padded to its own longest text
                    tokens = min(own.shape[1], call.logits.shape[1])
                    call.logits[part.rows, :tokens] = own[:, :tokens]
                if self._line.finish(call):
                    finished.append((call, call.logits))
            start = stop
        return finished


class _SubmittedFuture(Future[Any]):
    """A future whose texts leave the queue when it is cancelled."""

    call: Call | None = None

    def cancel(self) -> bool:
        cancelled, call = super().cancel(), self.call
        if cancelled and call is not None:
            self.call = None
            call.batcher._line.withdraw(call)
        return cancelled


def default_runners(predictor: Predictor) -> int:
    """Runs at the same time that fill the cores: one on a GPU, else the usable cores by the threads of one run."""
    if predictor.providers[0] != "CPUExecutionProvider":
        return 1
    return max(1, usable_cores() // predictor.threads)


def _answer(line: WaitingLine) -> None:
    """A runner's life: take, run, tell. It holds no batcher while it waits, so that one that is forgotten can go."""
    while taken := line.take():
        taken.parts[0].call.batcher.run(taken.parts, alone=taken.alone)
        del taken
        line.done()


def _deliver(outcomes: Sequence[tuple[Call, Outcome]]) -> None:
    """Tell callers; all of one event loop by waking it once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Logits], Outcome]]] = {}
    for call, outcome in outcomes:
        call.parts = ()  # call and parts know each other: without this only the garbage collector would free them
        if isinstance(call.future, _SubmittedFuture):
            call.future.call = None
            with contextlib.suppress(InvalidStateError):  # cancelled while the batcher was closing
                _settle(call.future, outcome)
        elif call.loop is not None and not isinstance(call.future, Future):
            by_loop.setdefault(call.loop, []).append((call.future, outcome))
    for loop, settled in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle_all, settled)


def _settle_all(settled: Sequence[tuple[asyncio.Future[Logits], Outcome]]) -> None:
    for future, outcome in settled:
        if not future.done():
            _settle(future, outcome)


def _settle(future: Future[Logits] | asyncio.Future[Logits], outcome: Outcome) -> None:
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _abandon_all() -> None:
    """At the end of the interpreter: what waits is refused, and runs that are going on may end."""
    batchers = list(_open)
    for batcher in batchers:
        batcher._line.close()
        batcher._refuse_waiting()
    for batcher in batchers:
        batcher._join(EXIT_SECONDS)
        _open.discard(batcher)
