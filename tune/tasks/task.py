"""The task: what a model of the family `once` learns to answer. One file a task in this folder, one row in `TASKS`.

A task says how rows are read, what their targets are, how inputs are encoded, and what is learnt; everything else (the
probe, the training loop, schemes, gate, report, bundle) is the same for all. What is learnt of one data set is its
`Objective`. Must not import torch on import: recipes are checked long before anything is trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune.serve.codecs import takes_files
from edgetune.serve.errors import DataError, RecipeError
from edgetune.tune.data.cleaning import clean
from edgetune.tune.data.column_names import NEAR, SIDE, label_points
from edgetune.tune.data.columns import Columns, choose_columns, require_column
from edgetune.tune.data.rows import Input, Rows, Target
from edgetune.tune.metrics import Metric

if TYPE_CHECKING:
    from edgetune.tune.data.contents import Contents
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.reading import Table
    from edgetune.tune.data.rows import Parts
    from edgetune.tune.tasks.objective import Objective

# The strength of a task that fits any labelled texts: one that fits these better says more, one that does not, nothing.
USUAL = 0.3


@dataclass(frozen=True)
class Guess:
    """How well a task fits some rows: 0 not at all, 1 beyond doubt, and the words that say why."""

    strength: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Summary:
    """What the targets of a data set are: one sentence for people, and facts for scripts as JSON types."""

    finding: str
    facts: Mapping[str, Any]


class Task(ABC):
    """What one task's methods share; a task with one text as its input overrides only what concerns its target.

    Attributes:
        name: as recipes name it.
        summary: one sentence for people.
        codec: how its inputs become arrays, of `edgetune.serve.codecs`.
        metrics: what its answers may be judged by; the first is the default.
        has_labels: whether its answers are labels, which can be weighed by their rarity.
        one_label: whether an answer is one of the labels, of which the model can be unsure.
        has_head: whether a linear layer above the pooled states gives the outputs; else they are the outputs.
        stratum: what rows are split by, in a word or two.
        per_token: whether the head answers for each token, and not for the whole input.
        kind: of its head, by which it is named as one of several tasks on one encoder; "" where it cannot be one.
        alone: why it cannot be, as the end of a sentence.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    codec: ClassVar[str] = "text"
    has_labels: ClassVar[bool] = True
    one_label: ClassVar[bool] = True
    has_head: ClassVar[bool] = True
    stratum: ClassVar[str] = "class"
    per_token: ClassVar[bool] = False
    kind: ClassVar[str] = ""
    alone: ClassVar[str] = ""
    family: ClassVar[str] = "once"

    @property
    def reads_text(self) -> bool:
        """Whether its inputs are texts, which become tokens, and not files of pictures."""
        return not takes_files(self.codec)

    def metric(self, name: str) -> Metric:
        """The metric that a recipe names; of no name the default.

        Raises:
            RecipeError: the task has none of that name.
        """
        known = {metric.name: metric for metric in self.metrics}
        if name and name not in known:
            raise RecipeError(f"gate.metric is {name!r}.", expected=f"for {self.name}: {' or '.join(known)}")
        return known[name] if name else self.metrics[0]

    def recognises(self, columns: Mapping[str, Sequence[Any]], section: Mapping[str, Any]) -> Guess:
        """How well the task fits labelled rows, `USUAL` for as well as any other.

        Args:
            columns: the cells of a sample of rows by column, as they were read; none where they could not be.
            section: what the recipe's data section says, not yet checked.
        """
        return Guess()

    # Rows

    def choose_columns(self, table: Table, recipe: DataRecipe) -> Columns:
        """The columns that inputs and targets are read from: named by the recipe, else guessed.

        Raises:
            DataError: a named column is not there, or one cannot be guessed.
        """
        self._refuse_keys(recipe, "text_pair", "separator", "image")
        return choose_columns(table, recipe.text, self._one_column(recipe))

    def read_rows(self, table: Table, columns: Columns) -> Rows:
        """Inputs and targets as the table has them, one of each a row."""
        for name in columns.texts:
            require_column(table, name, "text")
        for name in columns.labels:
            require_column(table, name, "label")
        return Rows(self.read_inputs(table, columns), self.read_words(table, columns))

    def read_inputs(self, table: Table, columns: Columns) -> tuple[Input, ...]:
        """The input of each row."""
        return table.columns[columns.texts[0]]

    def read_words(self, table: Table, columns: Columns) -> tuple[str, ...]:
        """The target of each row in words; "" where it has none."""
        return table.columns[columns.labels[0]]

    def tidied(self, parts: Parts, recipe: DataRecipe) -> tuple[Parts, Contents | None]:
        """The rows without empty ones and duplicates; and what lies in the files that inputs name, where they do.

        Raises:
            DataError: a file cannot be read.
        """
        return clean(parts, normalize=recipe.clean.normalize, deduplicate=recipe.clean.deduplicate), None

    def after_split(self, parts: Parts, contents: Contents | None, recipe: DataRecipe) -> Parts:
        """The parts once all are there, without what only then shows to be wrong."""
        return parts

    def linear_features(self, inputs: Sequence[Input]) -> Any:
        """What a linear model sees of inputs: `described`, and `transform` to a scipy CSR matrix (inputs, features).

        Raises:
            DataError: it sees nothing.
        """
        from edgetune.tune.ngrams.features import NgramFeatures

        return NgramFeatures.of(inputs)

    @abstractmethod
    def labels(self, parts: Parts, source: str, order: Sequence[str] | None) -> tuple[str, ...]:
        """The labels there are, in the order of the outputs, from clean rows; none for a task without.

        Args:
            parts: clean rows.
            source: what the user named, for messages.
            order: an order to keep where it has the same labels, such as a checkpoint's.

        Raises:
            DataError: the rows cannot be learnt from, or judged by.
        """

    @abstractmethod
    def target(self, word: str, labels: Mapping[str, int]) -> Target:
        """The target that a word of clean rows stands for; `labels` are the labels' places."""

    def places(self, target: Target) -> tuple[int, ...]:
        """The places of the labels that a target names, for counting; none of a number."""
        return target if isinstance(target, tuple) else (int(target),)  # type: ignore[return-value]

    @abstractmethod
    def strata(self, targets: Sequence[Target]) -> list[Hashable]:
        """What each row counts as when the rows are split so that every part has its share of each."""

    def units(self, rows: Rows) -> Sequence[int] | None:
        """Of each training row the number of what it is split with, so that both are in one part; None for itself."""
        return None

    def unrolled(
        self, texts: Sequence[Input], targets: Sequence[Target], recipe: DataRecipe, *, part: str
    ) -> tuple[tuple[Input, ...], tuple[Target, ...]]:
        """The inputs and targets of a part as models take them, which may be more than there are rows.

        Raises:
            DataError: the part cannot be judged by.
        """
        return tuple(texts), tuple(targets)

    def input_columns(self, columns: Columns) -> tuple[str, ...]:
        """The columns that hold the inputs that are served; none where no column does."""
        return columns.texts

    @abstractmethod
    def describe(self, labels: Sequence[str], targets: Sequence[Target]) -> Summary:
        """What the targets of all rows are, for a first look at data."""

    # Models

    def encode(
        self,
        tokenizer: Any,
        inputs: Sequence[Input],
        max_tokens: int,
        *,
        padding: bool = False,
        tensors: str | None = None,
    ) -> Any:
        """Token ids of inputs with special tokens, cut at `max_tokens`, as a transformers BatchEncoding.

        Args:
            padding: to the longest of them.
            tensors: "pt" or "np" for arrays instead of lists.
        """
        return tokenizer(list(inputs), truncation=True, max_length=max_tokens, padding=padding, return_tensors=tensors)

    @abstractmethod
    def objective(self, labels: Sequence[str], metric: str, targets: Sequence[Target]) -> Objective:
        """What is learnt of a data set.

        Args:
            labels: in the order of the outputs.
            metric: the name of the metric to judge by; "" for the default.
            targets: of the training part.
        """

    # Helpers

    def _one_column(self, recipe: DataRecipe) -> str | None:
        if recipe.label is not None and not isinstance(recipe.label, str):
            raise DataError(
                f"data.label names {len(recipe.label)} columns.",
                expected=f"one column for the task {self.name}.",
                action="name one column, or --task multi-label-classification for one column a label.",
            )
        return recipe.label

    def _refuse_keys(self, recipe: DataRecipe, *keys: str) -> None:
        for key in keys:
            if getattr(recipe, key) is not None:
                raise RecipeError(
                    f"data.{key} is given, which the task {self.name} does not use.",
                    expected=f"a recipe without data.{key}, or a task that uses it.",
                )


def describe_labels(counts: Mapping[str, int], noun: str) -> Summary:
    """A summary of labels with the rows of each; `noun` is what they are called."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    (largest, most), (smallest, least) = ranked[0], ranked[-1]
    sentence = f"{len(ranked):,} {noun}, from {least:,} rows ({smallest!r}) to {most:,} rows ({largest!r})."
    return Summary(sentence, {noun: dict(ranked)})


def possible_targets(columns: Mapping[str, Sequence[Any]], section: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """The columns that a target may stand in: the named one, else those with usual names, else all that are neither
    texts nor usual beside them, else all but texts."""
    named = section.get("label")
    if isinstance(named, str):
        return {named: columns[named]} if named in columns else {}
    texts = {section.get("text"), section.get("text_pair")}
    rest = {name: cells for name, cells in columns.items() if name not in texts}
    points = {name: label_points(name) for name in rest}
    best = max(points.values(), default=0.0)
    if best > 0:
        return {name: rest[name] for name, value in points.items() if best - value < NEAR}
    return {name: cells for name, cells in rest.items() if points[name] != SIDE} or rest
