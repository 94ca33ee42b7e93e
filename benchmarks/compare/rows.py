"""The labelled rows that two models are compared on, and both models' answers as the task's metrics take them.

Answers travel as JSON values, the head's `plain`, whoever gives them: two bundles need not have the same labels in the
same order, and a server tells no class numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.codecs import takes_files
from edgetune.serve.errors import InputError
from edgetune.serve.heads.entities import BEGINS, INSIDE, OUTSIDE
from edgetune.tune.data.classes import ordered_labels
from edgetune.tune.data.columns import Columns
from edgetune.tune.data.rows import Input, Parts, Rows, Target, is_blank
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.objective import Objective
from edgetune.tune.tasks.task import Task

if TYPE_CHECKING:
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.reading import Table


@dataclass(frozen=True)
class AnswerKind:
    """How answers of one kind of head are told in words.

    Attributes:
        names: the labels that a row's word names.
        outputs: names of labels to the labels of an objective.
        target: an answer, as the head's `plain` gives it, as a target; takes the labels' places too.
        tensor: the output of the Open Inference Protocol that holds it.
        parsed: a value of that output as `plain` has it.
    """

    names: Callable[[str], Sequence[str]]
    outputs: Callable[[Sequence[str]], Sequence[str]]
    target: Callable[[Any, Mapping[str, int]], Target]
    tensor: str
    parsed: Callable[[Any], Any]


def _spans(answer: Any, places: Mapping[str, int]) -> Target:
    return tuple((span["start"], span["end"], places[BEGINS + span["type"]]) for span in answer)


def _tags(kinds: Sequence[str]) -> Sequence[str]:
    return (OUTSIDE, *(prefix + kind for kind in kinds for prefix in (BEGINS, INSIDE)))


# By the kind of the head. Vectors are compared as they are.
KINDS = {
    "label": AnswerKind(lambda word: (word,), list, lambda answer, places: places[answer], "label", str),
    "labels": AnswerKind(
        json.loads,
        list,
        lambda answer, places: tuple(sorted(places[label] for label in answer)),
        "labels",
        json.loads,
    ),
    "number": AnswerKind(lambda _: (), list, lambda answer, _: float(answer), "value", float),
    "entities": AnswerKind(
        lambda word: [span[2] for span in json.loads(word)],
        _tags,
        _spans,
        "entities",
        lambda value: [{key: span[key] for key in ("type", "start", "end")} for span in json.loads(value)],
    ),
    "embedding": AnswerKind(lambda word: (word,), list, lambda answer, _: answer, "embedding", list),
}


@dataclass(frozen=True)
class ComparedRows:
    """Rows of a file, as both sides are asked them.

    Attributes:
        task: that they are of.
        kind: of the head that answers.
        inputs: of each row.
        words: the target of each row in words.
        findings: sentences on how they were read.
        recipe: how the file was read.
    """

    task: Task
    kind: str
    inputs: tuple[Input, ...]
    words: tuple[str, ...]
    findings: tuple[str, ...]
    recipe: DataRecipe

    @property
    def answers(self) -> AnswerKind:
        """How its answers are told in words."""
        return KINDS[self.kind]

    def judged(self, metric: str, known: Sequence[str]) -> JudgedRows:
        """The rows with targets, by the metric of that name, "" for the task's own.

        Args:
            metric: of the task.
            known: labels that either model can answer with.

        Raises:
            RecipeError: the task has no such metric.
        """
        named = [label for word in self.words for label in self.answers.names(word)]
        unknown = sorted(set(named) - set(known)) if known else []
        findings = list(self.findings)
        if unknown and self.kind != "embedding":
            rows = sum(bool(set(self.answers.names(word)) & set(unknown)) for word in self.words)
            findings.append(
                f"{rows:,} of {len(self.words):,} rows have labels that neither model knows, and both are wrong on: "
                f"{', '.join(map(repr, unknown[:5]))}."
            )
        labels = tuple(self.answers.outputs(ordered_labels({*known, *named}, None)))
        places = {label: place for place, label in enumerate(labels)}
        targets = [self.task.target(word, places) for word in self.words]
        inputs, targets_ = self.task.unrolled(self.inputs, targets, self.recipe, part="test")
        objective = self.task.objective(labels, metric, targets_)
        return JudgedRows(self, tuple(inputs), objective.expected(targets_), objective, places, tuple(findings))


@dataclass(frozen=True)
class JudgedRows:
    """Rows with what is expected, and what judges answers.

    Attributes:
        rows: as they were read.
        inputs: what models are asked; more than there are rows where a row holds several texts.
        expected: targets as the metric takes them, one entry an input.
        objective: its metric judges; its labels are those of both models and of the rows.
        places: of the labels.
        findings: sentences on how the rows were read.
    """

    rows: ComparedRows
    inputs: tuple[Input, ...]
    expected: NDArray[Any]
    objective: Objective
    places: Mapping[str, int]
    findings: tuple[str, ...]

    def decisions(self, answers: Sequence[Any], *, side: str) -> NDArray[Any]:
        """Answers as the head's `plain` gives them, as the metric takes them: one entry an input.

        Raises:
            InputError: an answer is a label that the side was not known to have.
        """
        if self.rows.kind == "embedding":
            return np.asarray(answers, dtype=np.float32)
        try:
            targets = [self.rows.answers.target(answer, self.places) for answer in answers]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{side} answered with {error}, which is no answer of the task {self.rows.task.name}.",
                expected=f"answers of the kind {self.rows.kind!r}",
            ) from error
        return self.objective.expected(targets)


def read_rows(recipe: DataRecipe, task: Task, kind: str, columns: Sequence[str], most: int, seed: int) -> ComparedRows:
    """Read the rows of a file: its test part where it has parts, else all; without rows that hold nothing.

    Args:
        recipe: names the file, and columns where the user does.
        task: that the rows are of.
        kind: of the head that answers.
        columns: that a bundle's inputs were trained from, taken where the file has them and nobody names others.
        most: rows at most; more are drawn by the seed.
        seed: of the draw.

    Raises:
        DataError: the file cannot be read, or has no clear columns.
        InputError: no row is left.
    """
    from edgetune.tune.data.dataset import read_tables

    tables = read_tables(recipe)
    table = tables.test or tables.train
    recipe = _with_trained_columns(recipe, table, columns, in_files=takes_files(task.codec))
    chosen: Columns = task.choose_columns(table, recipe)
    rows = task.read_rows(table, chosen)
    parts, _ = task.tidied(Parts(Rows((), ()), test=rows), recipe)  # a test part keeps its duplicates
    rows = parts.test or Rows((), ())
    filled = [place for place, text in enumerate(rows.texts) if not is_blank(text)]
    notes = [f"Read {len(rows):,} rows from {table.source}.", *table.findings, *chosen.findings, *parts.findings]
    if len(filled) > most:
        drawn = np.sort(np.random.default_rng(seed).permutation(len(filled))[:most])
        notes.append(f"Judged on {most:,} of {len(filled):,} rows, drawn by seed {seed}.")
        filled = [filled[place] for place in drawn.tolist()]
    if not filled:
        raise InputError(f"{table.source} has no row with an input and a target.", expected="labelled rows")
    rows = rows.take(filled)
    return ComparedRows(task, kind, rows.texts, rows.labels, tuple(notes), recipe)


def _with_trained_columns(recipe: DataRecipe, table: Table, columns: Sequence[str], *, in_files: bool) -> DataRecipe:
    keys = ("image",) if in_files else ("text", "text_pair")
    if not columns or not set(columns) <= set(table.columns) or any(getattr(recipe, key) for key in keys):
        return recipe
    return recipe.model_copy(update=dict(zip(keys, columns, strict=False)))


def task_of_head(name: str, head: HeadSpec) -> Task:
    """The task of a bundle, or of one head of several.

    Raises:
        InputError: this release compares no such task.
    """
    if name in TASKS and not head.name:
        return TASKS[name]
    found = next((task for task in TASKS.values() if task.kind == head.kind), None)
    if found is None:
        raise InputError(f"Bundles of the task {name} are not compared.", expected=", ".join(TASKS))
    return found
