"""A review of labelled rows: what `edgetune review` lists, from the rows as a build would learn from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetune.once.recipe import OnceRecipe
from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.corrections import TEXT_COLUMNS
from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.data.rows import Input
from edgetune.tune.review.near_duplicates import near_duplicates
from edgetune.tune.review.suspects import label_suspects
from edgetune.tune.tasks import TASKS

BASE = "none"  # a look at data opens no model
FEWEST_ROWS = 50  # fewer tell little of any label
JUDGING_FIRST = ("test", "validation", "train")  # of two rows that are alike the one that judges stays


@dataclass(frozen=True)
class Item:
    """A row to look at.

    Attributes:
        part: of the row.
        reason: why it is listed.
        text, label: the row.
        suggested: a label that is more probable; "" where it is not the label that is doubtful.
        likeness: the probability of the label, or the similarity to the other row, from 0 to 1.
        other: the text that is nearly repeated, in its part; "" where there is none.
    """

    part: str
    reason: str
    text: Input
    label: str
    suggested: str
    likeness: float
    other: str


@dataclass(frozen=True)
class Reviewed:
    """What a review lists: improbable labels first, then near duplicates across parts, then those within one.

    `rows` is how many there are in all parts; `held` says what is said of labels where they were not held against a
    model.
    """

    items: tuple[Item, ...]
    rows: int
    pairs: bool
    held: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The header of the list."""
        return ("action", "suggested", "label", "part", "reason", "likeness", *TEXT_COLUMNS[: 1 + self.pairs], "other")

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """The rows of the list, whose `action` a person fills in."""
        return [
            (
                *("", item.suggested, item.label, item.part, item.reason, f"{item.likeness:.3f}"),
                *([item.text] if isinstance(item.text, str) else item.text),
                item.other,
            )
            for item in self.items
        ]

    @property
    def facts(self) -> dict[str, Any]:
        """For scripts."""
        across = sum(item.reason == ACROSS for item in self.items)
        labels = sum(item.reason == LABEL for item in self.items)
        within = len(self.items) - across - labels
        return {"rows": self.rows, "labels": labels, "across_parts": across, "within_a_part": within}

    @property
    def lines(self) -> list[str]:
        """For people."""
        facts = self.facts
        return [
            f"Looked at {counted(self.rows, 'row')}.",
            self.held or f"{counted(facts['labels'], 'label')} that a linear model of other rows finds improbable.",
            f"{counted(facts['across_parts'], 'row')} that nearly repeat a row that judges: they flatter every score.",
            f"{counted(facts['within_a_part'], 'row')} that nearly repeat a row of their own part.",
        ]


LABEL, ACROSS, WITHIN = "improbable label", "near duplicate across parts", "near duplicate"


def review(task: str, data: Mapping[str, Any], near: float) -> Reviewed:
    """Read the data as a build does, and list the rows that a person should look at.

    Args:
        task: one of `TASKS`, of the family that is answered by one run.
        data: the values of the recipe's data section.
        near: the least similarity of near duplicates, above 0 and at most 1.

    Raises:
        DataError: the data cannot be read, or holds no texts.
    """
    kind = TASKS[task]
    recipe = OnceRecipe.of_values({"base": BASE, "task": task, "data": data}, None).data
    if not kind.reads_text or kind.per_token or not kind.has_head:
        raise DataError(
            f"{recipe.source} is read as {task}.",
            expected="texts, or pairs of texts, with labels or numbers",
            action="name the task with --task where it was guessed wrong",
        )
    dataset = Dataset.load(recipe, kind, seed=0)
    parts = _parts(dataset)
    rows = [(name, place) for name, part in parts.items() for place in range(len(part))]
    texts = tuple(text for part in parts.values() for text in part.texts)
    targets = tuple(target for part in parts.values() for target in part.targets)
    words = [_word(dataset.labels, target) for target in targets]
    repeated: list[Item] = []
    for near_row in near_duplicates(texts, near):
        (part, _), (other, _) = rows[near_row.row], rows[near_row.of]
        shown = f"{other}: {_one_line(texts[near_row.of])} [{words[near_row.of]}]"
        reason = WITHIN if part == other else ACROSS
        repeated.append(Item(part, reason, texts[near_row.row], words[near_row.row], "", near_row.similarity, shown))
    repeated.sort(key=lambda item: (item.reason != ACROSS, -item.likeness))
    held = _why_no_labels(dataset, targets)
    suspects = [] if held else label_suspects(Part(texts, targets), kind.objective(dataset.labels, "", targets))
    doubtful = [
        Item(
            rows[suspect.row][0],
            LABEL,
            texts[suspect.row],
            words[suspect.row],
            dataset.labels[suspect.suggested],
            suspect.given_probability,
            "",
        )
        for suspect in suspects
    ]
    return Reviewed((*doubtful, *repeated), len(texts), not isinstance(texts[0], str), held)


def _parts(dataset: Dataset) -> dict[str, Part]:
    """The parts, those that judge first; one that stands for another too is looked at once."""
    parts = {name: getattr(dataset, name) for name in JUDGING_FIRST}
    if dataset.validation == dataset.test:
        del parts["validation"]
    return parts


def _why_no_labels(dataset: Dataset, targets: tuple[Any, ...]) -> str:
    """Why labels are not held against a model, as a sentence; "" where they are."""
    if not all(type(target) is int for target in targets):
        return "Labels were not held against a model: rows have several, or numbers."
    if len(targets) < FEWEST_ROWS:
        return f"Labels were not held against a model: {counted(len(targets), 'row')} tell too little of them."
    return ""


def _word(labels: tuple[str, ...], target: Any) -> str:
    if isinstance(target, tuple):
        return "|".join(labels[place] for place in target)
    return labels[target] if isinstance(target, int) and labels else f"{target:g}"


def _one_line(text: Input) -> str:
    return " ".join((text if isinstance(text, str) else " | ".join(text)).split())
