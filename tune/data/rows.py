"""Rows on their way from a file to a data set: inputs and the words of their targets, part by part."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

Input = str | tuple[str, ...]  # one text, or a pair of texts; of what is read a triplet too
Span = tuple[int, int, int]  # first character, the one behind the last, and the number of a label
# The number of a label, a number, the numbers of several labels, or labelled spans of the text.
Target = int | float | tuple[int | Span, ...]


@dataclass(frozen=True)
class Rows:
    """Inputs and their targets as words, one of each a row."""

    texts: tuple[Input, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> Rows:
        """The rows at these positions, in that order."""
        chosen = list(rows)
        return Rows(tuple(self.texts[i] for i in chosen), tuple(self.labels[i] for i in chosen))


@dataclass(frozen=True)
class Parts:
    """The rows of each part that was given, and what there is to say about them."""

    train: Rows
    validation: Rows | None = None
    test: Rows | None = None
    findings: tuple[str, ...] = ()

    def saying(self, *findings: str) -> Parts:
        """The same rows with more to say."""
        return replace(self, findings=self.findings + findings)

    @property
    def given(self) -> dict[str, Rows]:
        """The parts that there are, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows for name, rows in parts.items() if rows is not None}


def each_text(change: Callable[[str], str], text: Input) -> Input:
    """An input with each of its texts changed."""
    return change(text) if isinstance(text, str) else tuple(map(change, text))


def is_blank(text: Input) -> bool:
    """Whether an input has no text, or lacks one of several."""
    return not text.strip() if isinstance(text, str) else not all(part.strip() for part in text)


def key(text: Input) -> Input:
    """What makes two inputs the same: their words, whatever their case and spacing."""
    return each_text(lambda part: " ".join(part.casefold().split()), text)


def flat_texts(inputs: Iterable[Input]) -> tuple[str, ...]:
    """The texts of all inputs, both of a pair, in order."""
    return tuple(text for given in inputs for text in ([given] if isinstance(given, str) else given))


def joined(texts: Sequence[Input]) -> Input:
    """All the texts as one, of pairs all the first and all the second ones."""
    pairs = [text for text in texts if not isinstance(text, str)]
    if pairs:
        return " ".join(first for first, _ in pairs), " ".join(second for _, second in pairs)
    return " ".join(text for text in texts if isinstance(text, str))


def filling(texts: Sequence[Input], tokens: int) -> Input:
    """The first texts as one, as many as fill `tokens`, or all: a word makes a token at least.

    No more than that: the tokenizers library keeps every combination of what it cuts off the two texts of a pair, and
    two texts of 25,000 tokens took ten gigabytes.
    """
    words = itertools.accumulate(max(1, len(" ".join(flat_texts([text])).split())) for text in texts)
    needed = sum(1 for _ in itertools.takewhile(lambda total: total < tokens, words)) + 1
    return joined(texts[:needed])


def length(text: Input) -> int:
    """Characters of an input."""
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])


def as_line(text: Input) -> str:
    """A text as it is, a pair with a bar between its texts."""
    return text if isinstance(text, str) else " | ".join(text)


def shortened(text: Input) -> str:
    """An input as one line of at most 60 characters."""
    line = " ".join(" | ".join([text] if isinstance(text, str) else text).split())
    return line if len(line) <= 60 else line[:57] + "..."
