"""The two kinds of models that a server holds open: those that classify texts and those that write them.

Which one a bundle becomes, its task decides; what a server needs of every model, both have. Must not import the web
server.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.serve.batcher import Batcher
from edgetune.serve.bundle import Bundle
from edgetune.serve.predictor import Predictor
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.scheduler import Scheduler


@dataclass(frozen=True)
class Classifier:
    """A predictor, and the batcher that joins its callers."""

    predictor: Predictor
    batcher: Batcher

    @property
    def bundle(self) -> Bundle:
        """What is being answered with."""
        return self.predictor.bundle

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers of the graph."""
        return tuple(self.predictor.providers)

    @property
    def waiting(self) -> int:
        """Texts in the queue now."""
        return self.batcher.waiting

    def close(self, seconds: float) -> None:
        """Finish what waits, for at most `seconds`."""
        self.batcher.close(seconds=seconds)


@dataclass(frozen=True)
class Writer:
    """A generator, and the scheduler in which its callers' answers take their steps together."""

    bundle: Bundle
    generator: Generator
    scheduler: Scheduler

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers of the graph."""
        return tuple(self.generator.decoder.providers)

    @property
    def waiting(self) -> int:
        """Prompts in the queue now."""
        return self.scheduler.waiting

    def close(self, seconds: float) -> None:
        """Finish what is being written, for at most `seconds`."""
        self.scheduler.close(seconds=seconds)
        self.generator.close()
