"""What each process of a server does and tells as it starts: its log, and what it answers with once it is ready.

Stands apart from launch.py, which imports the server and the supervisor, for both of them need it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass


@dataclass(frozen=True)
class Readiness:
    """What answers, once all of it was proven: versions and execution providers by model name."""

    models: dict[str, str]
    providers: dict[str, list[str]]


def open_log() -> None:
    """Write what the server has to say, and uvicorn's warnings, to standard error."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("edgetune.serve").setLevel(logging.INFO)  # not the access log's, which has a switch of its own
