"""From prompts to tokens, for both routes: the model, the prompt's ids, what the answer may cost, and the scheduler.

An answer's place is given back the moment that its request ends, however that happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgetune.serve.bundle import TOKENIZER_NAME
from edgetune.serve.errors import BundleError, EdgetuneError, InputError, Overloaded, PromptTooLong
from edgetune.serve.http.errors import NotReady, Refused
from edgetune.serve.http.metrics import Metrics
from edgetune.serve.http.openai.faults import Unfit
from edgetune.serve.http.openai.requests import answer_tokens
from edgetune.serve.http.openai.shapes import Usage
from edgetune.serve.http.openai.tokens import TokenTexts
from edgetune.serve.http.served import Served, State
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.stepwise.answer import Generation, TokenPiece
from edgetune.serve.stepwise.handle import Handle
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.tokenizing import read_tokenizer

if TYPE_CHECKING:
    from edgetune.serve.http.feedback import Recorder
    from edgetune.serve.http.repository import Repository
    from edgetune.serve.stepwise.generator import Generator


@dataclass(frozen=True)
class Task:
    """What one request makes a model do: the prompt's ids, how to draw the answer, and which adapter answers."""

    prompt_ids: Sequence[int]
    sampling: Sampling
    adapter: str | None = None

    def seeded(self, place: int) -> Task:
        """The task of one of several answers to the prompt: another draw, of a seed that was given its own."""
        seed = self.sampling.seed
        return self if place == 0 or seed is None else replace(self, sampling=replace(self.sampling, seed=seed + place))


class Generating:
    """Makes answers for the routes, from one repository."""

    def __init__(
        self, repository: Repository, settings: ServerSettings, metrics: Metrics, recorder: Recorder | None = None
    ) -> None:
        self.repository = repository
        self.settings = settings
        self.metrics = metrics
        self.recorder = recorder
        self._texts: weakref.WeakKeyDictionary[Generator, TokenTexts] = weakref.WeakKeyDictionary()

    @contextlib.contextmanager
    def lease(self, wished: str | None) -> Iterator[tuple[Served, str | None]]:
        """Lend out the model of that name, or the only one that generates text, and tell which adapter of it is meant.

        An adapter is named behind the model and a colon.

        Raises:
            Unfit: several are loaded and none was named, none generates, or the one that was named does not, or has no
                such adapter.
            UnknownModel, NotReady: as the repository says.
        """
        name, separator, adapter = self._name(wished).partition(":")
        with self.repository.lease(name) as served:
            if not served.generates:
                raise Unfit(
                    f"The model {served.name!r} classifies text.",
                    expected="a model of the task text-generation",
                    action="ask it by POST /v1/classify",
                    param="model",
                    code="model_not_supported",
                )
            if separator and adapter not in served.generator.adapters:
                adapters = served.generator.adapters
                raise Unfit(
                    f"The model {name!r} has no adapter {adapter[:140]!r}.",
                    expected=", ".join(f"{name}:{one}" for one in adapters) if adapters else f"{name} alone",
                    param="model",
                    code="model_not_found",
                    status=404,
                )
            yield served, adapter if separator else None

    def names(self) -> list[str]:
        """The models that generate text now, in order."""
        names = []
        for name, (state, _, _) in self.repository.states().items():
            with contextlib.suppress(EdgetuneError):
                if state is State.READY:
                    with self.repository.lease(name) as served:
                        names += [name] if served.generates else []
        return sorted(names)

    def _name(self, wished: str | None) -> str:
        if wished is not None:
            return wished
        names = [name for name in self.names() if name != self.settings.shadow]  # which answers nobody
        if len(names) == 1:
            return names[0]
        if not names and not self.repository.ready:
            raise NotReady("No model that generates text is ready here.", action="ask again later")
        if not names:
            raise Unfit("No model that generates text is loaded here.", param="model", status=404)
        raise Unfit(
            f"There are {len(names)} models here that generate text, and the body names none.",
            expected='"model": one of ' + ", ".join(names),
            param="model",
        )

    async def tasks(
        self,
        served: Served,
        adapter: str | None,
        read_prompts: Callable[[Generator], Sequence[Sequence[int]]],
        sampling: Callable[[int], Sampling],
        *,
        asked: int | None,
        default: int | None,
    ) -> list[Task]:
        """Read the prompts, and see that each and its answer fit into the model's context.

        Args:
            served: the model.
            adapter: which of its adapters answers; None is the first.
            read_prompts: makes ids of the prompts; run in a thread.
            sampling: how to draw an answer of so many tokens.
            asked, default: most tokens of the answer, as for `answer_tokens`.

        Raises:
            Unfit: 400; they do not fit.
            InputError: a prompt cannot be answered.
            Refused: 500; the bundle's template is none.
        """
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            prompts = await loop.run_in_executor(served.writer.threads, read_prompts, served.generator)
        except PromptTooLong as error:
            code = "context_length_exceeded"
            raise Unfit(error.found, expected=error.expected, action=error.action, code=code) from error
        except BundleError as error:  # a template that is none is not the client's fault
            raise _failed(error) from error
        self.metrics.observe_stage(served.name, "tokenize", time.perf_counter() - begun)
        sizes = [
            answer_tokens(
                asked,
                default,
                prompt_tokens=len(prompt_ids),
                context_tokens=served.generator.decoder.spec.context_tokens,
                most=self.settings.max_answer_tokens,
            )
            for prompt_ids in prompts
        ]
        return [Task(prompt_ids, sampling(tokens), adapter) for prompt_ids, tokens in zip(prompts, sizes, strict=True)]

    async def token_texts(self, served: Served) -> TokenTexts:
        """What single tokens are, for log-probabilities; opened when they are first asked for."""
        generator = served.generator
        texts = self._texts.get(generator)
        if texts is None:
            path = served.bundle.folder / TOKENIZER_NAME
            loop = asyncio.get_running_loop()
            texts = await loop.run_in_executor(served.writer.threads, lambda: TokenTexts(read_tokenizer(path)))
            self._texts[generator] = texts
        return texts

    @contextlib.contextmanager
    def writing(self, served: Served, task: Task) -> Iterator[Writing]:
        """Ask for the answer; when the block is left, however that happens, its place is another's at once.

        Raises:
            Overloaded: too many prompts are waiting.
            Refused: 500; the model failed on this prompt.
        """
        writing = Writing(served.scheduler.submit(task.prompt_ids, task.sampling, task.adapter))
        try:
            yield writing
        except (Refused, InputError, Overloaded):
            raise
        except EdgetuneError as error:
            raise _failed(error) from error
        finally:
            writing.handle.cancel()
            self._count(served.name, writing)

    def _count(self, model: str, writing: Writing) -> None:
        if writing.first_seconds is not None:
            self.metrics.observe_stage(model, "first_token", writing.first_seconds)
        usage, lookup = writing.usage, writing.handle.answer.lookup
        self.metrics.observe_answer(
            model,
            prompt_tokens=usage.prompt_tokens,
            answer_tokens=usage.completion_tokens,
            guessed_tokens=0 if lookup is None else lookup.guessed,
            accepted_tokens=0 if lookup is None else lookup.right,
        )


def asked_name(served: Served, adapter: str | None) -> str:
    """What a client calls a model, or one of its adapters."""
    return served.name if adapter is None else f"{served.name}:{adapter}"


def _failed(error: EdgetuneError) -> Refused:
    """What is the server's own fault, in its own words."""
    return Refused(500, error.found, expected=error.expected, action=error.action)


class Writing:
    """One answer while it is written.

    Attributes:
        handle: of the scheduler.
        first_seconds: from the question to the first piece; None before.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.first_seconds: float | None = None
        self._begun = time.perf_counter()
        self._tokens = 0

    @property
    def usage(self) -> Usage:
        """The tokens until now."""
        return Usage(self.handle.prompt_tokens, self._tokens, self.handle.cached_tokens)

    async def pieces(self) -> AsyncIterator[TokenPiece]:
        """What is new, as it comes."""
        async for piece in self.handle:
            if self.first_seconds is None:
                self.first_seconds = time.perf_counter() - self._begun
            self._tokens += len(piece.token_ids)
            yield piece

    async def whole(self) -> Generation:
        """The whole answer."""
        pieces = [piece async for piece in self.pieces()]
        return Generation.of(pieces, self.handle.answer)
