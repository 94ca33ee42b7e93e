"""One server process: uvicorn around the application, with bounded connections, and an end that loses no request.

uvicorn closes connections at rest at once when it is told to stop, and ends by the signal that it got; here what is on
its way is answered first, and the process leaves with 0. Several processes on one port are in workers.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import cast

import uvicorn

from edgetune.serve.errors import EdgetuneError
from edgetune.serve.http.access import access_log, observe_refusals
from edgetune.serve.http.app import create_app
from edgetune.serve.http.connection import BoundedConnection, bounded_by
from edgetune.serve.http.journal import Journal
from edgetune.serve.http.keys import Keys
from edgetune.serve.http.metrics import Metrics
from edgetune.serve.http.plan import ServerPlan, load_certificate
from edgetune.serve.http.repository import Repository
from edgetune.serve.http.startup import Readiness

logger = logging.getLogger("edgetune.serve")

# Longer than the pools of common clients keep a connection, so that it is they who close it.
KEEP_ALIVE_SECONDS = 30
# Behind the grace time, and before a supervisor's patience ends.
SPARE_SECONDS = 2.0
_TICKS_A_SWEEP = 5  # uvicorn ticks ten times a second


def serve_here(
    plan: ServerPlan,
    listener: socket.socket,
    announce: Callable[[Readiness], None],
    *,
    journal: Journal | None = None,
    supervised: bool = False,
) -> None:
    """Serve in this process until a signal says to leave.

    Args:
        plan: what to serve, already checked.
        listener: where.
        announce: called when all bundles are ready.
        journal: shared with the other workers, where there are any; where they are complete, this one is a replacement.
        supervised: a supervisor decides when enough was waited, and ends the process itself.

    Raises:
        EdgetuneError: a bundle cannot be used here.
    """
    metrics = Metrics(multiprocess_folder=os.environ.get("PROMETHEUS_MULTIPROC_DIR") if supervised else None)
    repository = Repository(plan.sources, plan.settings, observe=metrics.observe_run, journal=journal)
    keys = Keys.open(plan.key_file) if plan.key_file else None
    app = create_app(repository, plan.settings, keys=keys, metrics=metrics)
    config = uvicorn.Config(
        app,
        http=bounded_by(plan.settings, observe_refusals(metrics)),
        ws="none",
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ssl_certfile=plan.tls_cert,
        ssl_keyfile=plan.tls_key,
        ssl_keyfile_password="" if plan.tls_cert else None,
    )
    replaces = supervised and journal is not None and journal.complete
    server = Server(config, repository, plan, announce, supervised=supervised, replaces=replaces)
    server.keys = keys
    with access_log() if plan.settings.access_log else contextlib.nullcontext():
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure


def end_after(seconds: float) -> None:
    """End the process then, whatever its threads are doing: one that is stuck would keep Python from ending."""

    def end() -> None:
        time.sleep(seconds)
        logger.error("threads were still at work %g seconds after the signal to leave: the process ends", seconds)
        logging.shutdown()
        os._exit(0)

    threading.Thread(target=end, name="edgetune-end", daemon=True).start()


class Server(uvicorn.Server):
    """uvicorn's server, which opens the repository once it listens and leaves as `serve` says."""

    def __init__(
        self,
        config: uvicorn.Config,
        repository: Repository,
        plan: ServerPlan,
        announce: Callable[[Readiness], None],
        *,
        supervised: bool,
        replaces: bool,
    ) -> None:
        super().__init__(config)
        self.keys: Keys | None = None
        self.failure: BaseException | None = None
        self._repository = repository
        self._plan = plan
        self._announce = announce
        self._supervised = supervised
        self._replaces = replaces
        self._opening: asyncio.Task[None] | None = None
        self._reload_wanted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, so that the server is known to live, and open the bundles meanwhile.

        A replacement listens last: until it can answer, other workers do.
        """
        if not self._replaces:
            await super().startup(sockets)
        self._opening = opening = asyncio.create_task(self._repository.start())
        opening.add_done_callback(self._opened)
        if not self._replaces:
            return
        while not opening.done() and not self.should_exit:
            await asyncio.wait({opening}, timeout=0.1)
        if not self.should_exit and opening.exception() is None:
            await super().startup(sockets)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        if opening.cancelled():
            return
        self.failure = opening.exception()
        if self.failure is not None:
            self.should_exit = True
        elif not self.should_exit:
            self._announce(self._readiness())

    def _readiness(self) -> Readiness:
        models, providers = {}, {}
        for name, (_, version, _) in self._repository.states().items():
            if version:
                models[name] = version
                with self._repository.lease(name) as served:
                    providers[name] = list(served.answerer.providers)
        return Readiness(models, providers)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: uvicorn's own work, and ours now and then."""
        if counter % _TICKS_A_SWEEP == 0:
            self._sweep()
        if self._reload_wanted:
            self._reload_wanted = False
            self._reload()
        return await super().on_tick(counter)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in self._bounded():
            connection.sweep(now)

    def _bounded(self) -> list[BoundedConnection]:
        return cast("list[BoundedConnection]", list(self.server_state.connections))

    def _reload(self) -> None:
        """Read keys and certificate again; what cannot be read leaves the old ones in use."""
        try:
            if self.keys is not None:
                self.keys.reload()
                logger.info("%d keys were read again", len(self.keys))
            if isinstance(self.config.ssl, ssl.SSLContext) and self._plan.tls_cert:
                # Into a context of its own first: a pair that does not match would spoil the one in use.
                load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._plan.tls_cert, self._plan.tls_key)
                load_certificate(self.config.ssl, self._plan.tls_cert, self._plan.tls_key)
        except EdgetuneError as error:
            logger.error("nothing was read again, what was in use stays so: %s", error)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Obey signals while the server runs. uvicorn's own raises them again afterwards, and so never ends with 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        actions = {signal.SIGTERM: self.handle_exit, signal.SIGINT: self.handle_exit}
        if hasattr(signal, "SIGHUP"):
            actions[signal.SIGHUP] = self._want_reload
        if self._supervised:
            del actions[signal.SIGINT]  # the terminal sends it to the supervisor too, which passes on SIGTERM
        before = {number: signal.signal(number, action) for number, action in actions.items()}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not ready from this moment, then leave; asked a second time, leave at once."""
        if self.should_exit and not self._supervised:
            os._exit(128 + sig)
        self._repository.drain()
        if not self.should_exit:
            end_after(self._plan.settings.grace_seconds + SPARE_SECONDS)
        self.should_exit = True

    def _want_reload(self, sig: int, frame: FrameType | None) -> None:
        self._reload_wanted = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no connection any more, answer what is being asked and what is on its way, then close the bundles."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._plan.settings.grace_seconds
        self._repository.drain()
        if self._opening is not None:
            self._opening.cancel()
        # A turn of the loop takes in the connections that the system has accepted for us until now.
        await asyncio.sleep(0.01)
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in self._bounded():
            connection.shutdown()
        while (self.server_state.connections or self.server_state.tasks) and loop.time() < deadline:
            await asyncio.sleep(0.02)
            self._sweep()
        await self._cut_off()
        await self.lifespan.shutdown()
        await self._repository.close(max(0.0, deadline - loop.time()))

    async def _cut_off(self) -> None:
        """End what the grace time was not enough for."""
        left = len(self.server_state.tasks)
        if left:
            seconds = self._plan.settings.grace_seconds
            logger.warning("%d requests were not answered within the %g seconds of grace", left, seconds)
        for task in list(self.server_state.tasks):
            task.cancel()
        for connection in self._bounded():
            connection.abort()
        await asyncio.sleep(0)
