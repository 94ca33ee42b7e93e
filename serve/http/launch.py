"""From a plan to a server that answers: check, listen, then serve in this process or in workers.

Stands apart from the server, so that a supervisor of workers, which answers nothing itself, loads neither a web server
nor ONNX Runtime.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgetune.serve.http.plan import ServerPlan, listen
from edgetune.serve.http.startup import Readiness, open_log


@dataclass(frozen=True)
class Started:
    """A server that is ready: where, with what, and how many seconds after its start."""

    url: str
    ready: Readiness
    seconds: float


def serve(plan: ServerPlan, announce: Callable[[Started], None]) -> None:
    """Check the plan, listen, serve until a signal says to leave; `announce` is told when all bundles are ready.

    SIGTERM and SIGINT let what is running end, for at most `grace_seconds`; a second one leaves at once. SIGHUP reads
    keys and certificate again.

    Raises:
        EdgetuneError: nothing was served, or not all of it could be.
    """
    began = time.monotonic()
    plan.check()
    open_log()
    _allow_many_files()
    with listen(plan.host, plan.port) as listener:
        url = plan.url(listener)

        def tell(ready: Readiness) -> None:
            announce(Started(url, ready, time.monotonic() - began))

        if plan.workers == 1:
            from edgetune.serve.http.server import serve_here

            serve_here(plan, listener, tell)
        else:
            from edgetune.serve.http.workers import supervise

            supervise(plan, listener, tell)


def _allow_many_files() -> None:
    """Raise the limit of open files to what the system lets this user have: each connection is one."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
