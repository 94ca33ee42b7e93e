"""What the scheduler's thread works on: prompts that run in pieces, and the answers that then step together.

It stands apart from the queue and the thread (scheduler.py), so that it can be read and tested without them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.stepwise.cache import Cache, without_room
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.group import Group, known_beginning, read_token_by_token, sequence_ids
from edgetune.serve.stepwise.handle import Handle

Logits = NDArray[np.float32]
# A token that runs alone takes as long as so many that run together, about.
ECHOED_COST = 16


class PromptRun:
    """A prompt on its way through the graph.

    Attributes:
        handle: whose it is.
        cache: of the tokens that are through.
        logits: (vocabulary,) float32 behind the last token; None until then.
    """

    def __init__(self, generator: Generator, handle: Handle) -> None:
        self.handle = handle
        self.logits: Logits | None = None
        self.cache: Cache | None = None
        self._generator = generator
        self._done = 0

    @property
    def left(self) -> int:
        """Tokens that have not run yet."""
        return len(self.handle.answer.prompt) - self._done

    def run(self, most: int) -> int:
        """Run at most so many of the tokens that are left; how many it were."""
        decoder = self._generator.decoder
        if self.cache is None:
            self._done, self.cache = self._known()
            self.handle.answer.cached_tokens = self._done
        prompt = self.handle.answer.prompt
        ids = prompt[self._done : self._done + most]
        if self.handle.answer.echoes:
            ids = ids[: max(1, most // ECHOED_COST)]
            logits, self.cache = read_token_by_token(
                decoder, self.handle.answer, self.cache, start=self._done, most=len(ids)
            )
        else:
            logits, self.cache = decoder.run(np.array([ids], dtype=np.int64), self.cache)
        self._done += len(ids)
        if self.left == 0:
            self.logits = logits[0]
            if self._generator.prefixes.most_bytes:
                ids = sequence_ids(decoder, self.handle.answer)
                self._generator.prefixes.keep(ids, without_room(decoder.store, self.cache))
        return most if self.handle.answer.echoes else len(ids)

    def _known(self) -> tuple[int, Cache]:
        """What is known of the prompt's beginning; its last token must run, for the logits behind it."""
        answer, decoder = self.handle.answer, self._generator.decoder
        if not answer.echoes:  # else all of its tokens must run
            ids = sequence_ids(decoder, answer)[:-1]
            tokens, cache = known_beginning(decoder, answer, self._generator.prefixes, ids)
            if cache is not None:
                return tokens, cache
        return 0, decoder.start(1, coming=self.left, adapter=answer.adapter)


class Seats:
    """A group of answers and who waits for them, in the same order."""

    def __init__(self, group: Group, handles: Sequence[Handle] = ()) -> None:
        self.group = group
        self.handles = list(handles)

    def change(self, leaving: Sequence[Handle] = (), joining: Sequence[tuple[Handle, Cache]] = ()) -> None:
        """Let requests go, and others in with the caches of their prompts."""
        if leaving or joining:
            self.group.change(
                [handle.answer for handle in leaving], [(handle.answer, cache) for handle, cache in joining]
            )
            gone = {id(handle) for handle in leaving}
            self.handles = [handle for handle in self.handles if id(handle) not in gone]
            self.handles += [handle for handle, _ in joining]

    def take(self, logits: Logits) -> None:
        """Hand each request what its logits give; (requests, vocabulary) float32. Those that end leave."""
        for handle, row in zip(self.handles, logits, strict=True):
            deliver(handle, row)
        self.change(leaving=[handle for handle in self.handles if handle.ended])


def deliver(handle: Handle, logits: Logits) -> None:
    """Choose a request's next token; logits (vocabulary,) float32. A fault in it ends this request alone."""
    try:
        piece = handle.answer.take(logits)
    except Exception as error:  # noqa: BLE001 (whatever it raises belongs to who asked)
        handle.end(error)
        return
    if piece is not None:
        handle.put(piece)
