"""`edgetune predict` of a language model: its answers as they come, or whole as JSON. Needs the floor alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.commands.answers import Form, Unanswered, is_broken
from edgetune.serve.errors import InputError

if TYPE_CHECKING:
    from edgetune.serve.stepwise.generator import Generator
    from edgetune.serve.stepwise.sampling import Sampling

SHOWN_CHARACTERS = 40


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What the command line says of the answers: `raw` continues the text itself, without a chat template; `adapter` is
    which virtual tokens answer."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    raw: bool
    adapter: str | None = None

    def sampling(self) -> Sampling:
        """As the runtime takes it."""
        from edgetune.serve.stepwise.sampling import Sampling

        return Sampling(max_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p, seed=self.seed)

    def is_blank(self, text: str) -> bool:
        """Whether a text is empty; white space can be continued, but is no question."""
        return not (text if self.raw else text.strip())

    def asks_nothing(self, text: str) -> bool:
        """Whether a text gets no answer: it is blank, or broken Unicode."""
        return self.is_blank(text) or is_broken(text)


def print_generations(
    bundle: Path,
    prompts: Iterable[str],
    request: GenerationRequest,
    *,
    threads: int | None,
    provider: str,
    form: Form,
) -> None:
    """Answer each prompt in turn: streamed to stdout, each ended by a line break, or as JSON.

    Blank and broken prompts get no answer and are counted.

    Raises:
        InputError: a prompt cannot be answered, which names it, or all are blank.
    """
    from edgetune.serve.stepwise.generator import Generator

    sampling = request.sampling()
    with Generator.open(bundle, threads=threads, provider=provider) as generator:
        if form.kind != "lines":
            form.print_values(
                _plain(generator, text, request, sampling, number) for number, text in _counted(prompts, request)
            )
            return
        for number, text in _counted(prompts, request):
            if not request.asks_nothing(text):
                with _naming(number, text):
                    for piece in generator.stream(_prompt(generator, text, request), sampling, adapter=request.adapter):
                        click.echo(piece.text, nl=False)
            click.echo()


def _counted(prompts: Iterable[str], request: GenerationRequest) -> Iterator[tuple[int, str]]:
    """The prompts with their numbers; at the end, what there is to say about those without an answer."""
    unanswered = Unanswered("prompt")
    for number, text in enumerate(prompts, start=1):
        unanswered.count(blank=request.is_blank(text), broken=is_broken(text))
        yield number, text
    unanswered.report()


@contextmanager
def _naming(number: int, text: str) -> Iterator[None]:
    """Say of a fault which of the texts has it."""
    try:
        yield
    except InputError as error:
        shown = text[:SHOWN_CHARACTERS] + "..." * (len(text) > SHOWN_CHARACTERS)
        raise InputError(
            f"Text {number}, {shown!r}: {error.found}", expected=error.expected, action=error.action
        ) from error


def _prompt(generator: Generator, text: str, request: GenerationRequest) -> Any:
    """A chat of one turn where the model has a template, else the text."""
    return text if request.raw or generator.template is None else [{"role": "user", "content": text}]


def _plain(
    generator: Generator, text: str, request: GenerationRequest, sampling: Sampling, number: int
) -> dict[str, object]:
    if request.asks_nothing(text):
        return {"prompt": text, "text": None, "token_ids": None, "finish": None, "prompt_tokens": None}
    with _naming(number, text):
        generation = generator.generate(_prompt(generator, text, request), sampling, adapter=request.adapter)
    return {
        "prompt": text,
        "text": generation.text,
        "token_ids": list(generation.token_ids),
        "finish": generation.finish,
        "prompt_tokens": generation.prompt_tokens,
    }
