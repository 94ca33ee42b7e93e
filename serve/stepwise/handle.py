"""What a caller holds of a request that the scheduler works on: its pieces as they come, and a way to give it up.

It stands between the scheduler's thread and a caller in another thread or an event loop. It must not import the
scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from edgetune.serve.errors import EdgetuneError
from edgetune.serve.stepwise.answer import Answer, Generation, TokenPiece


class Handle:
    """One request. Its pieces are read once, by `for`, by `async for`, or by one of the results.

    A loop that is left early, or whose task is cancelled, cancels the request.

    Attributes:
        prompt_tokens: of its prompt.
    """

    def __init__(self, answer: Answer, withdraw: Callable[[Handle], None]) -> None:
        self.answer = answer
        self.prompt_tokens = len(answer.prompt)
        self._withdraw = withdraw
        self._changed = threading.Condition()
        self._pieces: deque[TokenPiece] = deque()
        self._error: Exception | None = None
        self._ended = False
        self._wake: Callable[[], object] | None = None  # the event loop's, where one waits

    @property
    def ended(self) -> bool:
        """Whether no more pieces will come: the answer is whole, it failed, or the caller has given it up."""
        return self._ended

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that had been computed before; known with the first piece."""
        return self.answer.cached_tokens

    def cancel(self) -> None:
        """Give the request up: it leaves the queue now, or the batch before its next step. Its pieces end."""
        if not self._ended:
            self.end()
            self._withdraw(self)

    def put(self, piece: TokenPiece) -> None:
        """Hand a piece over; for the scheduler."""
        with self._changed:
            if self._ended:
                return
            self._pieces.append(piece)
            self._ended = piece.finish is not None
            self._notify()

    def end(self, error: Exception | None = None) -> None:
        """End the request before its answer is whole; for the scheduler. A second end changes nothing."""
        with self._changed:
            if self._ended:
                return
            self._ended, self._error = True, error
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._wake()

    def __iter__(self) -> Iterator[TokenPiece]:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._pieces or self._ended)
                    piece = self._next()
                if piece is None:
                    return
                yield piece
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[TokenPiece]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        with self._changed:
            self._wake = lambda: loop.call_soon_threadsafe(changed.set)
        try:
            while True:
                changed.clear()
                with self._changed:
                    ready = bool(self._pieces) or self._ended
                    piece = self._next() if ready else None
                if not ready:
                    await changed.wait()
                elif piece is None:
                    return
                else:
                    yield piece
        finally:
            self.cancel()

    def _next(self) -> TokenPiece | None:
        """The next piece; None at the end."""
        if self._pieces:
            return self._pieces.popleft()
        if self._error is not None:
            raise self._error
        return None

    def result(self, *, seconds: float | None = None) -> Generation:
        """Wait for the whole answer.

        Args:
            seconds: at most, then the request is cancelled; None waits as long as it takes.

        Raises:
            EdgetuneError: the request failed, was cancelled, or took longer.
        """
        with self._changed:
            whole = self._changed.wait_for(lambda: self._ended, seconds)
        if not whole:
            self.cancel()
            raise EdgetuneError(f"There was no whole answer within {seconds:g} seconds.", action="allow more time")
        return self._whole(list(self))

    async def result_async(self) -> Generation:
        """As `result`; cancelling the task that waits cancels the request."""
        return self._whole([piece async for piece in self])

    def _whole(self, pieces: list[TokenPiece]) -> Generation:
        if not pieces or pieces[-1].finish is None:
            raise EdgetuneError("The request was cancelled before its answer was whole.")
        return Generation.of(pieces, self.answer)
