"""What a repository keeps for each model: what answers under its name, who uses it now, and what its folder held.

Stands apart from the repository, which alone changes these values. Must not import the web server.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from pathlib import Path

from edgetune.serve.batcher import Batcher
from edgetune.serve.bundle import Bundle
from edgetune.serve.http.answerers import Classifier, Writer
from edgetune.serve.http.errors import invalid
from edgetune.serve.http.opening import Seen
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import Report
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.report import LanguageReport
from edgetune.serve.stepwise.scheduler import Scheduler


class State(enum.StrEnum):
    """Whether a model answers, by the names of the protocol's repository extension."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass
class Served:
    """One version of one model that answers. `version` is "1" at first and counted up at each switch.

    The parts of a classifier are asked for by the routes that classify, and those of a writer by the routes that
    generate: asking for what the model is not refuses the request (400).
    """

    name: str
    version: str
    answerer: Classifier | Writer
    report: Report | LanguageReport | None

    @property
    def bundle(self) -> Bundle:
        """What is being answered with."""
        return self.answerer.bundle

    @property
    def generates(self) -> bool:
        """Whether the model writes text instead of classifying it."""
        return isinstance(self.answerer, Writer)

    @property
    def predictor(self) -> Predictor:
        """What classifies."""
        return self.classifier.predictor

    @property
    def batcher(self) -> Batcher:
        """What joins the callers of `predictor`."""
        return self.classifier.batcher

    @property
    def generator(self) -> Generator:
        """What writes."""
        return self.writer.generator

    @property
    def scheduler(self) -> Scheduler:
        """What joins the callers of `generator`."""
        return self.writer.scheduler

    @property
    def classifier(self) -> Classifier:
        """What classifies, with its batcher and threads."""
        if isinstance(self.answerer, Classifier):
            return self.answerer
        raise invalid(
            f"The model {self.name!r} generates text.",
            expected="a model that classifies",
            action="ask it by POST /v1/chat/completions or /v1/completions",
        )

    @property
    def writer(self) -> Writer:
        """What writes, with its scheduler and threads."""
        if isinstance(self.answerer, Writer):
            return self.answerer
        raise invalid(
            f"The model {self.name!r} classifies text.",
            expected="a model of the task text-generation",
            action="ask it by POST /v1/classify",
        )


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
    should_load: bool = True
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
