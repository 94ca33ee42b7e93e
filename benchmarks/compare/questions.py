"""The prompts of a file of conversations, each with the answer that stands there, and who answers them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgetune.benchmarks.compare.address import Address, Client, is_address
from edgetune.serve.bundle import TOKENIZER_NAME, Bundle
from edgetune.serve.errors import InputError
from edgetune.serve.stepwise.generator import Generator, Prompt
from edgetune.serve.stepwise.group import answer_together
from edgetune.serve.stepwise.sampling import Sampling

if TYPE_CHECKING:
    from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe


@dataclass(frozen=True)
class Question:
    """A chat up to its last answer, or a text that goes on, and what follows in the file.

    Attributes:
        prompt: messages with role and content, or a text.
        reference: the answer of the file.
    """

    prompt: Prompt
    reference: str

    @property
    def shown(self) -> str:
        """The prompt for people and judges."""
        if isinstance(self.prompt, str):
            return self.prompt
        if len(self.prompt) == 1:
            return str(self.prompt[0].get("content", ""))
        return "\n\n".join(f"{turn.get('role')}: {turn.get('content')}" for turn in self.prompt)


def read_questions(recipe: ConversationRecipe, most: int, seed: int) -> tuple[list[Question], list[str]]:
    """The questions of what a recipe names, the test part where it has parts, and sentences on how they were read.

    Args:
        recipe: names the file, its format and columns.
        most: questions at most; more are drawn by the seed.
        seed: of the draw.

    Raises:
        DataError: the file cannot be read.
        InputError: no row asks for an answer.
    """
    from edgetune.tune.stepwise.conversation_cleaning import ChatParts, clean_chats
    from edgetune.tune.stepwise.format_choice import chats_of, choose_format
    from edgetune.tune.stepwise.raw_parts import read_raw_parts

    raw = read_raw_parts(recipe.named, recipe.file_options)
    rows = raw.test or raw.train
    choice = choose_format(rows, recipe.format, recipe.columns)
    (chats,) = chats_of([rows], choice)
    parts = clean_chats(ChatParts((), None, chats, ()), recipe.clean, choice.format.kind)
    questions = []
    for chat in parts.test or ():
        turns = chat.turns
        if len(turns) < 2 or turns[-1].role != "assistant" or not turns[-1].content:
            continue
        before = [{"role": turn.role, "content": turn.content} for turn in turns[:-1]]
        completes = choice.format.kind == "completion" and not recipe.template
        prompt: Prompt = before[-1]["content"] + recipe.separator if completes else before
        questions.append(Question(prompt, turns[-1].content))
    if not questions:
        raise InputError(f"{rows.source} has no row that asks for an answer.", expected="prompts with answers")
    findings = [f"Read {len(questions):,} prompts from {rows.source}.", *choice.findings, *parts.findings]
    if len(questions) > most:
        drawn = np.sort(np.random.default_rng(seed).permutation(len(questions))[:most]).tolist()
        findings.append(f"Judged on {most:,} of {len(questions):,} prompts, drawn by seed {seed}.")
        questions = [questions[place] for place in drawn]
    return questions, findings


class Writer(Protocol):
    """Who answers prompts; `size_bytes` is None where it is not known."""

    name: str
    size_bytes: int | None

    def write(self, question: Question, max_tokens: int) -> str:
        """The greedy answer."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass
class BundleWriter:
    """A language model's bundle in this process."""

    name: str
    generator: Generator
    size_bytes: int | None
    task: str
    tokenizer_digest: str

    @classmethod
    def open(cls, folder: Path) -> BundleWriter:
        """Open a bundle of the task text-generation."""
        bundle = Bundle.open(folder, verify=False)
        generator = Generator.open(folder)
        manifest = bundle.manifest
        return cls(str(folder), generator, bundle.size_bytes, manifest.task, manifest.files[TOKENIZER_NAME].sha256)

    def write(self, question: Question, max_tokens: int) -> str:
        return self.generator.generate(question.prompt, Sampling(max_tokens=max_tokens)).text

    def nats(self, question: Question) -> tuple[float, int]:
        """Minus the log-probability of the reference after the prompt, and its tokens.

        Raises:
            InputError: both are longer than the context.
        """
        generator = self.generator
        prompt = generator.prompt_ids(question.prompt)
        ids = [*prompt, *generator.codec.encode(question.reference, special=False)]
        answer = generator.answer(ids, Sampling(max_tokens=1, logprobs=0, echo_logprobs=True))
        for _ in answer_together(generator.decoder, [answer], batch_size=1, prefixes=None):
            pass
        scored = [one.logprob for one in answer.prompt_logprobs[len(prompt) :] if one is not None]
        return -sum(scored), len(scored)

    def close(self) -> None:
        self.generator.close()


@dataclass
class AddressWriter:
    """A language model behind OpenAI's routes."""

    name: str
    client: Client
    size_bytes: int | None = None

    def write(self, question: Question, max_tokens: int) -> str:
        if isinstance(question.prompt, str):
            return self.client.complete(question.prompt, max_tokens=max_tokens)
        messages = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in question.prompt]
        return self.client.chat(messages, max_tokens=max_tokens)

    def close(self) -> None:
        self.client.close()


def open_writer(name: str, key: str | None) -> Writer:
    """A bundle's folder, or an address of OpenAI's routes.

    Raises:
        InputError: an address of another protocol.
    """
    if not is_address(name):
        return BundleWriter.open(Path(name))
    client = Client(Address.of(name), key)
    if client.address.protocol != "v1":
        raise InputError(f"{name} generates no text.", expected="http://HOST:PORT/v1/models/NAME")
    return AddressWriter(name, client)
