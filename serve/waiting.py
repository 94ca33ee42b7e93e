"""The line of texts that wait for a run of the graph, and which of them go together.

It stands apart from the threads that take from it (batcher.py), so that what is joined can be read and tested alone.
Must import the standard library and the errors only.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING

from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.errors import EdgetuneError, Overloaded

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from asyncio import Future as LoopFuture

    import numpy as np
    from numpy.typing import NDArray

    from edgetune.serve.batcher import Batcher

# Padding that a run may bear: its longest text is at most so much longer than its shortest, or all its padding together
# is no more tokens than this. On a CPU a run of an int8 MiniLM costs little more than its tokens, so padding soon costs
# more than joining saves; a tiny model or a GPU would bear more, and loses a few per cent by this.
LENGTH_SHARE = 0.15
PADDING_TOKENS = 16
# Tokens of one run, padding included: more of them do not answer faster, keep others waiting and take memory.
RUN_TOKENS = 4096
# So many runs in a row that nobody came beside make one caller likely: its next run may take all cores. Simulated with
# two runs at once and Poisson arrivals, 4% of the runs are taken for a lone caller's at a tenth of the capacity, and
# 0.2% at a fifth.
RUNS_ALONE = 16


class Call:
    """What one caller asked: its parts, and the future that is told. `loop` is None for a caller outside asyncio."""

    __slots__ = ("batcher", "future", "left", "logits", "loop", "parts", "since", "started")

    def __init__(
        self,
        batcher: Batcher,
        future: Future[NDArray[np.float32]] | LoopFuture[NDArray[np.float32]],
        loop: AbstractEventLoop | None,
        since: float,
    ) -> None:
        # A call keeps its batcher alive: the threads know the line alone, so that a forgotten batcher can go.
        self.batcher = batcher
        self.future = future
        self.loop = loop
        self.since = since
        self.parts: Sequence[Part] = ()
        self.left = 0
        self.logits: NDArray[np.float32] | None = None  # where answers of several parts come together
        self.started = False

    def start(self) -> bool:
        """Whether the caller is still there when the first of its texts goes into a run."""
        if not self.started:
            self.started = True
            if isinstance(self.future, Future):
                return self.future.set_running_or_notify_cancel()
        return not self.future.cancelled()


@dataclass(frozen=True, slots=True)
class Shape:
    """Texts that go into one run: how many, the shortest and the longest of them in tokens, and their sum."""

    texts: int
    narrowest: int
    widest: int
    tokens: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Shape:
        """The shape of texts of these lengths."""
        return cls(len(lengths), min(lengths), max(lengths), sum(lengths))

    def joined(self, other: Shape) -> Shape:
        """Both together."""
        return Shape(
            self.texts + other.texts,
            min(self.narrowest, other.narrowest),
            max(self.widest, other.widest),
            self.tokens + other.tokens,
        )

    def fits(self, most: int) -> bool:
        """Whether they may be one run, of at most so many texts; one text alone always may."""
        padded = self.texts * self.widest
        return self.texts == 1 or (
            self.texts <= most
            and padded <= RUN_TOKENS
            and (self.widest <= (1 + LENGTH_SHARE) * self.narrowest or padded - self.tokens <= PADDING_TOKENS)
        )


class Part:
    """Texts of one call that go into one run; `rows` is where they stand in it, None for all of it in order.

    `number` is the order of arrival.
    """

    __slots__ = ("call", "number", "rows", "shape", "texts", "waiting")

    def __init__(self, call: Call, texts: Sequence[EncodedText], rows: list[int] | None, shape: Shape) -> None:
        self.call = call
        self.texts = texts
        self.rows = rows
        self.shape = shape
        self.number = 0
        self.waiting = False


def split_call(call: Call, texts: Sequence[EncodedText], max_batch: int) -> list[Part]:
    """The parts of a call: all of it where that fits into one run, else as few runs of like length as may be."""
    lengths = [text.size for text in texts]
    shape = Shape.of(lengths)
    if shape.fits(max_batch):
        return [Part(call, texts, None, shape)]
    parts: list[tuple[list[int], Shape]] = []
    for row in sorted(range(len(texts)), key=lengths.__getitem__):
        one = Shape.of([lengths[row]])
        if parts and (joined := parts[-1][1].joined(one)).fits(max_batch):
            parts[-1][0].append(row)
            parts[-1] = parts[-1][0], joined
        else:
            parts.append(([row], one))
    return [Part(call, [texts[row] for row in rows], rows, shape) for rows, shape in parts]


@dataclass(frozen=True, slots=True)
class Taken:
    """Parts that go together into one run; `alone` for a single text that will hardly see another run beside it."""

    parts: list[Part]
    alone: bool


class WaitingLine:
    """Parts in order of arrival, kept by their longest text. Thread-safe.

    Attributes:
        texts: that wait now.
    """

    def __init__(self, max_batch: int, max_texts: int, takers: int) -> None:
        self.texts = 0
        self._max_batch, self._max_texts, self._takers = max_batch, max_texts, takers
        self._lines: dict[int, deque[Part]] = {}
        self._numbers = count()
        self._lock = threading.Lock()
        # A token for each taker to wake. A SimpleQueue, since closing may happen in a finalizer, which must not lock.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._idle = self._running = self._alone = 0
        self._closed = False

    def add(self, call: Call, parts: Sequence[Part], texts: int) -> None:
        """Let a call wait.

        Raises:
            Overloaded: its texts do not fit.
            EdgetuneError: the line is closed.
        """
        with self._lock:
            if self._closed:
                raise EdgetuneError("The batcher is closed.", action="open the bundle again")
            if self.texts + texts > self._max_texts:
                raise self._overloaded(texts)
            self.texts += texts
            if self._running:
                self._alone = 0
            call.parts, call.left = parts, len(parts)
            for part in parts:
                part.number, part.waiting = next(self._numbers), True
                self._lines.setdefault(part.shape.widest, deque()).append(part)
            for _ in range(min(self._idle, len(parts))):
                self._idle -= 1
                self._wake.put(None)

    def _overloaded(self, texts: int) -> Overloaded:
        return Overloaded(
            f"{texts} text(s) do not fit into the queue, where {self.texts} of at most {self._max_texts} wait.",
            expected=f"at most {self._max_texts} waiting texts, all calls together",
            action="ask again a little later" if texts <= self._max_texts else "send fewer texts in a call",
        )

    def take(self) -> Taken | None:
        """What goes into the next run, waiting for it; None when the line is closed and empty.

        What waits is shared out where several takers are free: two texts on two of them end sooner than both on one.
        """
        while True:
            with self._lock:
                while self._lines:
                    share = -(-self.texts // (self._takers - self._running))
                    if parts := self._pick(min(share, self._max_batch)):
                        self._running += 1
                        return Taken(parts, alone=self._is_alone(parts))
                if self._closed:
                    return None
                self._idle += 1
            self._wake.get()

    def _is_alone(self, parts: Sequence[Part]) -> bool:
        if self._running > 1 or self._lines:
            self._alone = 0
        return self._alone >= RUNS_ALONE and len(parts) == 1 and parts[0].shape.texts == 1

    def done(self) -> None:
        """Say that a taker's run has ended."""
        with self._lock:
            self._running -= 1
            self._alone += 1

    def _pick(self, most: int) -> list[Part]:
        """The oldest part and others of like width, up to `most` texts; empty where all had been cancelled."""
        lines = self._lines
        taken: list[Part] = []
        shape = None
        first = min(lines, key=lambda width: lines[width][0].number) if len(lines) > 1 else next(iter(lines))
        for width in sorted(lines, key=lambda width: abs(width - first)):
            line = lines[width]
            while line:
                joined = line[0].shape if shape is None else shape.joined(line[0].shape)
                if shape is not None and not joined.fits(most):
                    break
                part = line.popleft()
                self._remove(part)
                if part.call.start():
                    shape = joined
                    taken.append(part)
            if not line:
                del lines[width]
            if shape is not None and shape.texts >= most:
                break
        return taken

    def _remove(self, part: Part) -> None:
        part.waiting = False
        self.texts -= len(part.texts)

    def withdraw(self, call: Call) -> None:
        """Take what still waits of a call out of the line."""
        with self._lock:
            for part in call.parts:
                if part.waiting:
                    self._remove(part)
                    line = self._lines[part.shape.widest]
                    line.remove(part)
                    if not line:
                        del self._lines[part.shape.widest]
            call.parts = ()

    def finish(self, call: Call) -> bool:
        """Count an answered part of a call; whether it was the last one, and none had failed."""
        with self._lock:
            call.left -= 1
            return call.left == 0

    def fail(self, call: Call) -> bool:
        """Give a call up for a part that failed; whether it was the first one."""
        self.withdraw(call)
        with self._lock:
            first = call.left > 0
            call.left = 0
            return first

    def close(self) -> None:
        """Let nobody in any more, and the takers go when the line is empty. Takes no lock."""
        self._closed = True
        for _ in range(self._takers):
            self._wake.put(None)

    @property
    def closed(self) -> bool:
        """Whether nobody is let in any more."""
        return self._closed

    def drain(self) -> list[Call]:
        """Empty the line; the calls that had texts in it."""
        with self._lock:
            parts = [part for line in self._lines.values() for part in line]
            for part in parts:
                self._remove(part)
                part.call.left = 0
            self._lines.clear()
        return list({id(part.call): part.call for part in parts}.values())
