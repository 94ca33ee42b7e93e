"""What a repository keeps for each model: what answers under its name, who uses it now, and what its folder held.

Stands apart from the repository, which alone changes these values. Must not import the web server.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from pathlib import Path

from edgetune.serve.batcher import Batcher
from edgetune.serve.http.opening import Seen
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import Report


class State(enum.StrEnum):
    """Whether a model answers, by the names of the protocol's repository extension."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass
class Served:
    """One version of one model that answers. `version` is "1" at first and counted up at each switch."""

    name: str
    version: str
    predictor: Predictor
    batcher: Batcher
    report: Report | None


@dataclass
class Lent:
    """What is served, who uses it now, and whether it is on its way out."""

    served: Served
    fingerprint: str
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()


@dataclass
class Slot:
    """One name: what answers under it, and what is known of its folder."""

    name: str
    path: Path
    state: State = State.LOADING
    reason: str = ""
    lent: Lent | None = None
    tried: Seen | None = None
    revision: int = 0
    wanted: bool = True
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
