"""`edgetune predict` of a language model: its answers as they come, or whole as JSON. Needs the floor alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.commands.options import print_json

if TYPE_CHECKING:
    from edgetune.serve.generation.generator import Generator
    from edgetune.serve.generation.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the command line says of the answers; `raw` continues the text itself, without a chat template."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    raw: bool

    def sampling(self) -> Sampling:
        """As the runtime takes it."""
        from edgetune.serve.generation.sampling import Sampling

        return Sampling(max_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p, seed=self.seed)


def print_generations(bundle: Path, prompts: Iterable[str], wish: Wish, *, threads: int | None, as_json: bool) -> None:
    """Answer each prompt in turn: streamed to stdout, each ended by a line break, or as one JSON list."""
    from edgetune.serve.generation.generator import Generator

    generator = Generator.open(bundle, threads=threads)
    if as_json:
        print_json([_plain(generator, prompt, wish) for prompt in prompts])
        return
    for prompt in prompts:
        for piece in generator.stream(_prompt(generator, prompt, wish), wish.sampling()):
            click.echo(piece.text, nl=False)
        click.echo()


def _prompt(generator: Generator, text: str, wish: Wish) -> Any:
    """A chat of one turn where the model has a template, else the text."""
    return text if wish.raw or generator.template is None else [{"role": "user", "content": text}]


def _plain(generator: Generator, prompt: str, wish: Wish) -> dict[str, object]:
    found = generator.generate(_prompt(generator, prompt, wish), wish.sampling())
    return {
        "prompt": prompt,
        "text": found.text,
        "token_ids": list(found.token_ids),
        "finish": found.finish,
        "prompt_tokens": found.prompt_tokens,
    }
