"""The answers of one request: one a prompt, or several, written at the same time and told as they come.

No more of them are with the scheduler than it answers at once, so that a long list of prompts does not fill the queue
for everybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from edgetune.serve.http.openai.generating import Generating, Task, Writing
from edgetune.serve.http.openai.shapes import Shape, Usage
from edgetune.serve.http.served import Served
from edgetune.serve.json_types import JsonObject


@dataclass(frozen=True)
class Choice:
    """One answer to come: what makes it, how it is written, and whether its prompt counts: once for several answers."""

    task: Task
    shape: Shape
    counts_prompt: bool = True


class Choices:
    """The answers of one request.

    Attributes:
        usage: tokens until now, of all of them.
        texts: what was written until now, an answer each.
    """

    def __init__(self, generating: Generating, served: Served, choices: Sequence[Choice]) -> None:
        self._generating, self._served, self._choices = generating, served, choices
        self._places = asyncio.Semaphore(served.scheduler.rows)
        self.usage = Usage(0, 0)
        self.texts = [""] * len(choices)

    async def whole(self) -> list[JsonObject]:
        """Every answer, in order.

        Raises:
            Overloaded, Refused, InputError: of the first that failed; the others are given up.
        """
        tasks = [asyncio.ensure_future(self._whole(*numbered)) for numbered in enumerate(self._choices)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _whole(self, place: int, choice: Choice) -> JsonObject:
        async with self._places:
            with self._generating.writing(self._served, choice.task) as writing:
                generation = await writing.whole()
                self.texts[place] = generation.text
                answer = choice.shape.answer(generation)
                self._count(choice, writing)
        return answer

    async def events(self) -> AsyncIterator[JsonObject]:
        """What is new of any answer, as the choice of an event; raises as `whole` does."""
        events: asyncio.Queue[JsonObject | None] = asyncio.Queue(maxsize=1)  # a slow client holds the writers up
        tasks = [asyncio.ensure_future(self._events(*numbered, events)) for numbered in enumerate(self._choices)]
        ending = asyncio.ensure_future(_end(tasks, events))
        try:
            while (event := await events.get()) is not None:
                yield event
            await ending
        finally:
            for task in (*tasks, ending):
                task.cancel()

    async def _events(self, place: int, choice: Choice, events: asyncio.Queue[JsonObject | None]) -> None:
        shape, begun = choice.shape, False
        async with self._places:
            with self._generating.writing(self._served, choice.task) as writing:
                async for piece in writing.pieces():
                    opening = None if begun else shape.opening(writing.handle.answer.prompt_logprobs)
                    begun = True
                    self.texts[place] += piece.text
                    for event in [*([opening] if opening else []), *shape.piece(piece)]:
                        await events.put(event)
                self._count(choice, writing)

    def _count(self, choice: Choice, writing: Writing) -> None:
        self.usage += writing.usage if choice.counts_prompt else writing.usage.of_answer


async def _end(tasks: Sequence[asyncio.Future[None]], events: asyncio.Queue[JsonObject | None]) -> None:
    """Tell the reader that nothing more comes; raises what a writer raised."""
    try:
        await asyncio.gather(*tasks)
    finally:
        await events.put(None)
