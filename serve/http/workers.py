"""Several server processes on one port: started, replaced when they die, and led out together.

The supervisor listens and answers nothing itself; the workers share its socket, so a connection that a dying worker
had not taken is taken by another. uvicorn's own supervisor restarts all workers on SIGHUP and starts one again without
end. Must not import the web server: only the workers do.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import EdgetuneError

if TYPE_CHECKING:
    from edgetune.serve.http.journal import Journal
    from edgetune.serve.http.plan import ServerPlan
    from edgetune.serve.http.startup import Readiness

logger = logging.getLogger("edgetune.serve")

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# Between the replacements of a worker that dies again before it was ready: doubled each time, up to the last.
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 30.0
# After the grace time that each worker keeps by itself.
SPARE_SECONDS = 3.0


@dataclass
class _Worker:
    """One place: the process in it now, what it said, and when it may be filled again."""

    process: BaseProcess | None = None
    pipe: Connection | None = None
    ready: bool = False
    failures: int = 0
    not_before: float = 0.0


def supervise(plan: ServerPlan, listener: socket.socket, announce: Callable[[Readiness], None]) -> None:
    """Serve in `plan.workers` processes until a signal says to leave.

    Raises:
        EdgetuneError: a worker could not start the first time, or the system has no such workers.
    """
    if not hasattr(os, "fork"):
        raise EdgetuneError("This system has no worker processes.", action="leave --workers away")
    with tempfile.TemporaryDirectory(prefix="edgetune-serve-") as folder:
        metrics = Path(folder, "metrics")
        metrics.mkdir()
        os.environ[METRICS_FOLDER] = str(metrics)
        supervisor = Supervisor(_shared_out(plan), listener, announce, Path(folder))
        supervisor.run()


def _shared_out(plan: ServerPlan) -> ServerPlan:
    """The plan with the cores shared out between the workers, where it does not say how many runs they have."""
    share = max(1, usable_cores() // plan.workers)
    runners = plan.settings.runners or max(1, share // plan.settings.threads)
    lone_threads = plan.settings.lone_threads or share
    return replace(plan, settings=replace(plan.settings, runners=runners, lone_threads=lone_threads))


class Supervisor:
    """Keeps the workers of one server alive."""

    def __init__(
        self, plan: ServerPlan, listener: socket.socket, announce: Callable[[Readiness], None], folder: Path
    ) -> None:
        self._plan = plan
        self._listener = listener
        self._announce = announce
        self._folder = folder
        self._workers = [_Worker() for _ in range(plan.workers)]
        self._announced = False
        self._leaving = False
        self._failure: EdgetuneError | None = None

    def run(self) -> None:
        """Start the workers and stay until they have left.

        Raises:
            EdgetuneError: one of them could not start the first time.
        """
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._obey) for number in numbers}
        try:
            while not self._leaving:
                self._fill()
                self._hear(0.5)
            self._lead_out()
        finally:
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.kill()
            for number, action in before.items():
                signal.signal(number, action)
        if self._failure is not None:
            raise self._failure

    def _obey(self, number: int, frame: FrameType | None) -> None:
        """In the signal itself, since all workers shall be not ready at once."""
        if number == signal.SIGHUP:
            self._pass_on(signal.SIGHUP)
        elif self._leaving:
            self._pass_on(signal.SIGKILL)
            os._exit(128 + number)
        else:
            self._leave()

    def _leave(self) -> None:
        self._leaving = True
        # First: the last process that has the socket open is the one that ends the listening.
        self._listener.close()
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers:
            process = worker.process
            if process is not None and process.pid is not None and process.exitcode is None:
                os.kill(process.pid, number)

    def _fill(self) -> None:
        """Start a process wherever there is none."""
        for worker in self._workers:
            if worker.process is None and time.monotonic() >= worker.not_before and not self._leaving:
                self._start(worker)

    def _start(self, worker: _Worker) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (self._plan, self._listener, theirs, self._folder, self._announced)
        process = context.Process(target=work, args=arguments, name="edgetune-worker")
        # The child begins with these held back, until it has said what to do on them; so does this process meanwhile.
        held = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, held)
        try:
            process.start()
            worker.process, worker.pipe, worker.ready = process, ours, False
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
        theirs.close()

    def _hear(self, seconds: float) -> None:
        """Wait until a worker says something or ends, and act on it."""
        running = [worker for worker in self._workers if worker.process is not None]
        pipes = {worker.pipe: worker for worker in running if worker.pipe is not None}
        ends = {worker.process.sentinel: worker for worker in running if worker.process is not None}
        for source in wait([*pipes, *ends], timeout=seconds):
            if isinstance(source, Connection):
                self._listen_to(pipes[source], source)
            elif isinstance(source, int):
                self._bury(ends[source])

    def _listen_to(self, worker: _Worker, pipe: Connection) -> None:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            worker.pipe = None
            return
        if isinstance(message, EdgetuneError):
            logger.error("a worker cannot serve: %s", message)
            if not self._announced:
                self._failure = self._failure or message
                self._leave()
            return
        worker.ready, worker.failures = True, 0
        if not self._announced and all(one.ready for one in self._workers):
            self._announced = True
            for one in self._workers:
                self._tell_complete(one)
            self._announce(message)

    @staticmethod
    def _tell_complete(worker: _Worker) -> None:
        if worker.pipe is not None:
            with contextlib.suppress(OSError):  # it has just ended, and is replaced
                worker.pipe.send(True)

    def _bury(self, worker: _Worker) -> None:
        """Take a process that has ended out of its place."""
        process, pipe = worker.process, worker.pipe
        if process is None:
            return
        if pipe is not None and pipe.poll():
            self._listen_to(worker, pipe)  # its last words may say why
        process.join()
        self._forget_metrics(process.pid)
        worker.process, worker.pipe = None, None
        if pipe is not None:
            pipe.close()
        if self._leaving:
            return
        if not self._announced:
            self._failure = EdgetuneError(
                f"A worker ended with {process.exitcode} before it was ready.", action="see what it said above"
            )
            self._leave()
            return
        pause = 0.0 if worker.ready else FIRST_PAUSE_SECONDS * 2**worker.failures
        worker.failures += not worker.ready
        worker.not_before = time.monotonic() + min(pause, LAST_PAUSE_SECONDS)
        logger.warning("worker %s ended with %s and is replaced", process.pid, process.exitcode)

    @staticmethod
    def _forget_metrics(pid: int | None) -> None:
        """Its counts stay, for counters only rise; what was true of the living process alone goes."""
        from prometheus_client.multiprocess import mark_process_dead

        if pid is not None:
            mark_process_dead(pid)

    def _lead_out(self) -> None:
        """Wait for the workers to leave; whoever is there after the grace time is killed."""
        deadline = time.monotonic() + self._plan.settings.grace_seconds + SPARE_SECONDS
        while any(worker.process for worker in self._workers) and time.monotonic() < deadline:
            self._hear(0.1)


def work(plan: ServerPlan, listener: socket.socket, pipe: Connection, folder: Path, replaces: bool) -> None:
    """The life of one worker process: serve, say when it is ready or why it cannot be.

    One that `replaces` another, while the rest of them answer, takes no connection before it is ready.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server reads keys, there are none to read again
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
    from edgetune.serve.http.journal import Journal

    journal = Journal(folder / "journal.json", complete=replaces)
    threading.Thread(target=_obey_the_supervisor, args=(pipe, journal), daemon=True).start()
    from edgetune.serve.http.server import serve_here
    from edgetune.serve.http.startup import open_log

    open_log()
    try:
        serve_here(plan, listener, pipe.send, journal=journal, supervised=True)
    except EdgetuneError as error:
        pipe.send(error)


def _obey_the_supervisor(pipe: Connection, journal: Journal) -> None:
    """Note when the supervisor says that all workers are ready.

    A supervisor that was killed cannot lead its workers out: its end of the pipe closes, and they leave alone.
    """
    try:
        while True:
            journal.complete = pipe.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
