"""The two sides of a comparison: a bundle's folder, or a model behind an address; both answer inputs one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgetune.benchmarks.compare.address import Address, Client, is_address
from edgetune.benchmarks.compare.rows import KINDS
from edgetune.serve.bundle import Bundle, HeadSpec
from edgetune.serve.codecs import codec_inputs, codec_parts
from edgetune.serve.errors import InputError
from edgetune.serve.loading import load
from edgetune.serve.predictor import Predictor
from edgetune.tune.data.rows import Input, as_line

_ANSWER_TOKENS = 32


class Side(Protocol):
    """Who answers. `labels` are those it can answer with, none where it does not say; `size_bytes` None if unknown."""

    name: str

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def size_bytes(self) -> int | None: ...

    def answer(self, given: Input) -> Any:
        """The answer to one input, as the head's `plain` gives it."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass
class BundleSide:
    """A bundle that answers in this process, one input a run, as it answers single requests."""

    name: str
    predictor: Predictor

    @classmethod
    def open(cls, folder: Path, task: str) -> BundleSide:
        """Open a bundle, or one task of it.

        Raises:
            InputError: it answers several tasks and none is named.
        """
        names = [head.name for head in Bundle.open(folder, verify=False).manifest.answer_heads]
        if len(names) > 1 and not task:
            raise InputError(
                f"{folder} answers {len(names)} tasks.",
                expected="one to compare",
                action=f"--task {' or '.join(names)}",
            )
        return cls(str(folder), load(folder, task=task if len(names) > 1 or names[0] else ""))

    @property
    def head(self) -> HeadSpec:
        """What answers."""
        return self.predictor.heads[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of its head; of entities their types."""
        names = tuple(self.head.labels)
        return (
            tuple(dict.fromkeys(name[2:] for name in names if name != "O")) if self.head.kind == "entities" else names
        )

    @property
    def size_bytes(self) -> int:
        """Of the whole bundle."""
        return self.predictor.bundle.size_bytes

    def answer(self, given: Input) -> Any:
        codec = self.predictor.bundle.manifest.codec
        return self.predictor.predict_one(codec_inputs(codec, [given])[0]).plain

    def close(self) -> None:
        self.predictor.close()


@dataclass
class ServerSide:
    """A server of the Open Inference Protocol, which takes the bundle's inputs by the names of their parts."""

    name: str
    client: Client
    kind: str
    parts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    size_bytes: int | None = None

    def answer(self, given: Input) -> Any:
        kind = KINDS[self.kind]
        return kind.parsed(self.client.infer(self.parts, [given], kind.tensor)[0])

    def close(self) -> None:
        self.client.close()


@dataclass
class PromptedSide:
    """A language model behind OpenAI's routes that is told the labels and asked for one: what a small model replaces.

    What it answers beside the labels counts as an answer of its own, which is always wrong.
    """

    name: str
    client: Client
    kind: str
    labels: tuple[str, ...]
    size_bytes: int | None = None

    def answer(self, given: Input) -> Any:
        told = self.client.chat(
            [
                {"role": "system", "content": self._instruction()},
                {"role": "user", "content": as_line(given)},
            ],
            max_tokens=_ANSWER_TOKENS,
        )
        return self.read(told)

    def _instruction(self) -> str:
        if self.kind == "number":
            return "Answer with the one number that belongs to the text, and with nothing else."
        return f"Answer with the one label that fits the text, and with nothing else. Labels: {', '.join(self.labels)}."

    def read(self, told: str) -> Any:
        """The label or number in an answer; NO_LABEL where there is none."""
        words = told.strip().strip(".\"'` \n")
        if self.kind == "number":
            try:
                return float(words)
            except ValueError as error:
                raise InputError(f"{self.name} answered {told[:80]!r}.", expected="a number") from error
        by_name = {label.casefold(): label for label in self.labels}
        return by_name.get(words.casefold(), NO_LABEL)

    def close(self) -> None:
        self.client.close()


NO_LABEL = "(none of the labels)"


def open_side(name: str, task: str, other: BundleSide | None, key: str | None) -> Side:
    """A side by its name; an address is asked as the other side's bundle says.

    Args:
        name: a bundle's folder, or an address.
        task: of several of a bundle, the one to compare.
        other: the other side, for an address.
        key: for the address.

    Raises:
        InputError: no bundle tells what an address shall be asked, or it cannot be asked that.
    """
    if not is_address(name):
        return BundleSide.open(Path(name), task)
    if other is None:
        raise InputError(
            "Both sides are addresses.", expected="a bundle on one side, which tells what is asked and how it is judged"
        )
    client, head = Client(Address.of(name), key), other.head
    manifest = other.predictor.bundle.manifest
    if client.address.protocol == "v2":
        return ServerSide(name, client, head.kind, codec_parts(manifest.codec))
    if head.kind not in ("label", "number"):
        client.close()
        raise InputError(
            f"{name} speaks OpenAI's routes, which give no answers of the kind {head.kind!r}.",
            expected="a bundle that answers a label or a number, or an address of the Open Inference Protocol",
        )
    return PromptedSide(name, client, head.kind, (*other.labels, NO_LABEL) if head.kind == "label" else ())


def known_labels(sides: Sequence[Side]) -> list[str]:
    """The labels that the sides can answer with, each once."""
    return list(dict.fromkeys(label for side in sides for label in side.labels))
