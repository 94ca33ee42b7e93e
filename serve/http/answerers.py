"""The two kinds of models that a server holds open: those that classify texts and those that write them.

Which one a bundle becomes, its task decides; what a server needs of every model, both have. Must not import the web
server.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from edgetune.serve.batcher import Batcher
from edgetune.serve.bundle import Bundle
from edgetune.serve.drift import DriftWatch
from edgetune.serve.predictor import Predictor
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.scheduler import Scheduler

# Of each model: long texts are tokenized, and chats rendered, beside the event loop and beside those of other models.
TOKENIZER_THREADS = 2


def _threads(number: int) -> ThreadPoolExecutor:
    """Threads of one model, which start when they are first needed."""
    return ThreadPoolExecutor(number, "edgetune-read")


@dataclass(frozen=True)
class Classifier:
    """A predictor, and the batcher that joins its callers.

    `threads` are for its texts, `lone_thread` is for runs that no batch can join: what takes long holds up no other
    model. `drift` watches its inputs, where the bundle says what those of its test part were.
    """

    predictor: Predictor
    batcher: Batcher
    threads: ThreadPoolExecutor = field(default_factory=lambda: _threads(TOKENIZER_THREADS))
    lone_thread: ThreadPoolExecutor = field(default_factory=lambda: _threads(1))
    drift: DriftWatch | None = None

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
        for threads in (self.threads, self.lone_thread):
            threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Writer:
    """A generator, and the scheduler in which its callers' answers take their steps together.

    `threads` are for its prompts: what takes long holds up this model only.
    """

    bundle: Bundle
    generator: Generator
    scheduler: Scheduler
    threads: ThreadPoolExecutor = field(default_factory=lambda: _threads(TOKENIZER_THREADS))

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
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.generator.close()
