"""The data recipe and the data set: training, validation and test inputs with their targets, in a fixed order.

The one place where reading, choosing columns, cleaning and splitting come together; what a target is, the task says.
What was guessed, dropped and held out is kept as sentences.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import numpy as np
from pydantic import Field, field_validator

from edgetune.serve.errors import DataError, RecipeError, UndecidedColumns
from edgetune.tune.augmentation import TextAugmentRecipe
from edgetune.tune.data.classes import check_rows, label_findings, without_empty_parts
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.columns import Columns
from edgetune.tune.data.corrections import corrected, read_corrections
from edgetune.tune.data.coverage import balance_findings
from edgetune.tune.data.out_of_scope import OutOfScope, read_out_of_scope
from edgetune.tune.data.rows import Input, Parts, Rows, Target
from edgetune.tune.data.source_recipe import SourceRecipe
from edgetune.tune.data.sources import Tables, read_parts
from edgetune.tune.data.split import Split, split_rows
from edgetune.tune.data.split_column import divide, part_column
from edgetune.tune.data.unlabeled import clean_unlabeled, read_unlabeled
from edgetune.tune.models.stored import Stored, changed_rows

if TYPE_CHECKING:
    from edgetune.tune.data.contents import Contents
    from edgetune.tune.data.reading import Table
    from edgetune.tune.tasks.task import Task

PART_NAMES = ("train", "validation", "test")
# Enough to tell models apart by 2 to 3 points; beyond it a row is worth more as a training row.
MOST_HELD_OUT_ROWS = 1_000
# Findings on rows that choose the model and judge it as well.
NO_VALIDATION_ROWS = (
    "There is no validation row: the test rows choose the model as well, so that figures on them flatter it."
)
NO_TEST_ROWS = (
    "There is no test row: the validation rows, which choose the model, judge it as well, so that figures on them "
    "flatter it."
)
LEAST_HELD_OUT = 0.1  # of the training rows, to choose a model by where the recipe keeps none for it


class DataRecipe(SourceRecipe):
    """Where the labelled texts are and how they are read."""

    rows: ClassVar[str] = "labelled texts"

    unlabeled: str | None = Field(
        default=None,
        description="More texts of the domain, without labels, for schemes that learn from texts alone: "
        "a .txt file with a text a line, or any source that path may name.",
    )
    out_of_scope: str | None = Field(
        default=None,
        description="Texts that belong to none of the classes, as unlabeled names them: half of them choose which "
        "answers are unsure, half show how many of such texts are.",
    )
    corrections: str | None = Field(
        default=None,
        description="A list of rows that edgetune review wrote, with what is to be done in its column action: relabel "
        "as column suggested says, or drop.",
    )
    text: str | None = Field(default=None, description="The column of texts; without it, guessed and said.")
    text_pair: str | None = Field(
        default=None, description="Of pairs, the column of second texts; without it, guessed and said."
    )
    negative: str | None = Field(
        default=None,
        description="Of embeddings, the column of texts that do not belong to those of text and text_pair.",
    )
    prompts: dict[str, str] | None = Field(
        default=None,
        description="Of embeddings, what stands before a text that is looked for with (query) and one that is to be "
        "found (document), such as {query: 'query: ', document: 'passage: '}; without it, what the base says.",
    )
    image: str | None = Field(
        default=None,
        description="Of pictures, the column that names their files, from the table's own folder on, or holds them; "
        "without it, guessed and said.",
    )
    remember: str | None = Field(
        default=None,
        description="Rows of the earlier task that a tuned base has learnt, read as the new ones are: the report shows "
        "what is forgotten of it, and tune.ewc holds on to it.",
    )
    replay: float = Field(
        default=0.0, ge=0, le=1, description="Share of the training rows in remember that are learnt again."
    )
    label: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="The column of labels or numbers; without it, guessed and said. Several columns of 0 and 1, one a "
        "label, for texts with several labels at once.",
    )
    separator: str | None = Field(
        default=None, min_length=1, description="What separates the labels of a text that has several; else detected."
    )
    augment: TextAugmentRecipe = Field(
        TextAugmentRecipe(), description="Of texts with labels, changed copies of the training rows."
    )

    @field_validator("prompts")
    @classmethod
    def _known_prompts(cls, prompts: dict[str, str] | None) -> dict[str, str] | None:
        """A prompt of another name would stand before no text."""
        if strangers := [name for name in prompts or {} if name not in ("query", "document")]:
            raise ValueError(f"there is no prompt {strangers[0]!r}; expected query and document")
        return prompts


@dataclass(frozen=True)
class Part:
    """Inputs (texts, or pairs of texts) and the target of each, as the task's `target` gives it."""

    texts: tuple[Input, ...]
    targets: tuple[Target, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Remembered:
    """The earlier task's rows in a data set.

    Attributes:
        train: its training rows, in a drawn order.
        replayed: how many of them, from the first on, stand at the end of the training part too.
        validation_rows, test_rows: how many stand at the end of these parts.
    """

    train: Part
    replayed: int
    validation_rows: int
    test_rows: int

    @property
    def unseen(self) -> Part:
        """The training rows that are not learnt again."""
        return Part(self.train.texts[self.replayed :], self.train.targets[self.replayed :])


@dataclass(frozen=True)
class Copies:
    """Changed copies of training texts: how many rows at the end of the training part they are, and whether tuning
    leaves them out where they gain nothing."""

    rows: int
    must_gain: bool


@dataclass(frozen=True)
class Dataset(Stored):
    """Rows to learn from, to choose by and to judge by, and the order of their labels.

    Args:
        labels: in the order of the outputs: a label's place is its number; none for a task without labels.
        digest: "sha256:" and the digest of labels, parts and unlabeled texts: the same rows in the same order give
            the same. Not of texts out of scope, from which nothing is learnt.
        source: what the user named.
        columns: where inputs and targets were read from.
        findings: sentences on what was guessed, dropped, counted and split.
        unlabeled: more texts of the domain, none of which stands in the validation or test part; often empty.
        out_of_scope: texts that belong to no class; None where none were named.
        prompts: what stands before texts already, by its name.
        contents: of inputs that name files, the SHA-256 of each file by part, in order, and it is these that `digest`
            is of; empty where inputs are texts.
        depth_range: levels of pictures of more than 8 bits that become black and white; None without such.
        remembered: rows of an earlier task; None without one.
        copies: changed copies in the training part; None without any, as where rows of an earlier task are.
    """

    file_name: ClassVar[str] = "dataset.json"
    noun: ClassVar[str] = "data set"
    command: ClassVar[str] = "build --fresh"

    train: Part
    validation: Part
    test: Part
    labels: tuple[str, ...]
    digest: str
    source: str
    columns: Columns
    findings: tuple[str, ...]
    unlabeled: tuple[Input, ...] = ()
    out_of_scope: OutOfScope | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    contents: tuple[tuple[str, ...], ...] = ()
    depth_range: tuple[float, float] | None = None
    remembered: Remembered | None = None
    copies: Copies | None = None

    @classmethod
    def load(cls, recipe: DataRecipe, task: Task, *, seed: int, label_order: Sequence[str] | None = None) -> Dataset:
        """Read, clean and split the data that `recipe` names.

        Args:
            task: what is to be learnt.
            seed: of the split.
            label_order: an order of the labels to keep, such as a base checkpoint's; ignored where it is not
                the same set as the labels found.

        Raises:
            DataError: the data cannot be read, has no clear columns, or cannot be learnt from.
        """
        return cls.of_tables(read_tables(recipe), recipe, task, seed=seed, label_order=label_order)

    @classmethod
    def of_tables(
        cls,
        tables: Tables,
        recipe: DataRecipe,
        task: Task,
        *,
        seed: int,
        label_order: Sequence[str] | None = None,
    ) -> Dataset:
        """As `load`, of tables that are already read.

        A column that says which part each row is of is obeyed, unless its training rows cannot be learnt from, or lack
        labels of the others.
        """
        column = part_column(tables, _named_columns(recipe))
        if column is not None:
            try:
                return cls._of_parts(divide(tables.train, column), recipe, task, seed=seed, label_order=label_order)
            except UndecidedColumns:
                raise
            except DataError as error:
                finding = f"Column {column!r} of {tables.train.source} names parts and is not obeyed: {error.found}"
                findings = (*tables.train.findings, finding)
                tables = replace(tables, train=replace(tables.train, findings=findings))
        return cls._of_parts(tables, recipe, task, seed=seed, label_order=label_order)

    @classmethod
    def _of_parts(
        cls, tables: Tables, recipe: DataRecipe, task: Task, *, seed: int, label_order: Sequence[str] | None
    ) -> Dataset:
        columns = task.choose_columns(tables.train, recipe)
        parts = _select(_with_targets(tables, columns, recipe), columns, task)
        if recipe.corrections is not None:
            parts = corrected(parts, read_corrections(recipe.corrections))
        parts, files = task.tidied(parts, recipe)
        parts = without_empty_parts(parts)
        check_rows(parts, recipe.source)
        labels = task.labels(parts, recipe.source, label_order)
        places = {label: place for place, label in enumerate(labels)}
        given = [task.target(word, places) for rows in parts.given.values() for word in rows.labels]
        strata = task.strata([task.target(word, places) for word in parts.train.labels])
        parts = task.after_split(_split(parts, recipe.split, seed, strata, task), files, recipe)
        parts, unlabeled = _with_unlabeled(parts, recipe, columns)
        named = recipe.out_of_scope
        outside = None if named is None else read_out_of_scope(named, parts, recipe, columns)
        made = [Part(rows.texts, tuple(task.target(word, places) for word in rows.labels)) for rows in _all_rows(parts)]
        counts = Counter(_all_labels(labels, given, task))
        named_places = {place for target in given for place in task.places(target)} if labels else set()
        findings = (*parts.findings, *_unlearnt(labels, made[0], named_places, task), *label_findings(counts))
        if counts and sum(counts.values()) == len(given) and not task.per_token:  # one label a row
            findings += balance_findings(counts)
        train, validation, test = (
            Part(*task.unrolled(part.texts, part.targets, recipe, part=name))
            for name, part in zip(PART_NAMES, made, strict=True)
        )
        contents = _contents(files, (train, validation, test))
        digest = _digest(labels, (train, validation, test), unlabeled, contents)
        return cls(
            *(train, validation, test, labels, digest, recipe.source, columns, findings, unlabeled, outside),
            prompts=dict(recipe.prompts or {}),
            contents=contents,
            depth_range=files.depth_range if files else None,
        )

    @classmethod
    def open(cls, folder: Path) -> Self:
        """What `save` wrote.

        Raises:
            WorkError: the folder holds no data set, or its rows are not those that were saved.
        """
        opened = super().open(folder)
        if opened.with_digest().digest != opened.digest:
            raise changed_rows(cls, folder)
        return opened

    def with_digest(self) -> Self:
        """The same with the digest of its rows."""
        parts, earlier = [self.train, self.validation, self.test], self.remembered
        parts += [] if earlier is None else [earlier.unseen]
        return replace(self, digest=_digest(self.labels, parts, self.unlabeled, self.contents))

    def without_copies(self) -> Self:
        """The same with no changed copies of training texts."""
        if self.copies is None:
            return self
        first = len(self.train) - self.copies.rows
        train = Part(self.train.texts[:first], self.train.targets[:first])
        return replace(self, train=train, copies=None).with_digest()


def _named_columns(recipe: DataRecipe) -> tuple[str | None, ...]:
    labels = (recipe.label,) if isinstance(recipe.label, str) else tuple(recipe.label or ())
    return (recipe.text, recipe.text_pair, recipe.negative, *labels)


def read_tables(recipe: DataRecipe) -> Tables:
    """Read what `recipe` names, and nothing more."""
    return read_parts(recipe.named, recipe.file_options)


def _with_targets(tables: Tables, columns: Columns, recipe: DataRecipe) -> Tables:
    """The tables without validation and test parts that lack the label's columns, as those of competitions do.

    A part that the user named by itself stays, and is refused where its columns are chosen.
    """
    findings = []
    for name in ("validation", "test"):
        table: Table | None = getattr(tables, name)
        if table is None or getattr(recipe, name) is not None:
            continue
        missing = [label for label in columns.labels if label not in table.columns]
        if missing and all(text in table.columns for text in columns.texts):
            findings.append(f"{table.source} has no column {missing[0]!r}: its {len(table):,} rows are left out.")
            tables = replace(tables, validation=None) if name == "validation" else replace(tables, test=None)
    train = replace(tables.train, findings=(*tables.train.findings, *findings))
    return replace(tables, train=train)


def _select(tables: Tables, columns: Columns, task: Task) -> Parts:
    """Inputs and targets of each part, after what there is to say about how they were read."""
    given = [table for table in (tables.train, tables.validation, tables.test) if table is not None]
    findings = [f"Read {counted(len(table), 'row')} from {table.source}." for table in given]
    findings += [finding for table in given for finding in table.findings]
    train, validation, test = (
        None if table is None else task.read_rows(table, columns)
        for table in (tables.train, tables.validation, tables.test)
    )
    return Parts(train or Rows((), ()), validation, test, (*findings, *columns.findings))


def _split(
    parts: Parts, shares: tuple[float, float, float], seed: int, strata: Sequence[Hashable], task: Task
) -> Parts:
    """Split off the parts that were not given; `strata` is what each training row counts as."""
    if parts.validation is not None and parts.test is not None:
        return parts
    before = len(parts.train)
    split = _split_units(task.units(parts.train), strata, _open_shares(parts, shares), seed)
    validation = parts.validation or parts.train.take(split.validation.tolist())
    test = parts.test or parts.train.take(split.test.tolist())
    made = Parts(parts.train.take(split.train.tolist()), validation, test, parts.findings)
    took = [
        counted(len(rows), f"{name} row")
        for name, rows, given in (("validation", validation, parts.validation), ("test", test, parts.test))
        if given is None
    ]
    made = made.saying(
        f"Split {counted(before, 'row')} by {task.stratum} with seed {seed}: "
        f"{counted(len(made.train), 'training row')}, {', '.join(took)}."
    )
    return _with_rows_to_judge(made)


def _split_units(
    units: Sequence[int] | None, strata: Sequence[Hashable], shares: tuple[float, float, float], seed: int
) -> Split:
    """The rows of each part; of rows that are split together, `units` has their number, all are in one part."""
    if units is None:
        return split_rows(strata, shares, seed=seed)
    numbers = np.asarray(units)
    split = split_rows([0] * (int(numbers.max()) + 1), shares, seed=seed)
    parts = (np.flatnonzero(np.isin(numbers, part)) for part in (split.train, split.validation, split.test))
    return Split(*parts)


def _with_rows_to_judge(parts: Parts) -> Parts:
    """One of the held-out parts in place of the other where that has no row."""
    if parts.validation and parts.test:
        return parts
    if parts.test:
        return replace(parts, validation=parts.test).saying(NO_VALIDATION_ROWS)
    if parts.validation:
        return replace(parts, test=parts.validation).saying(NO_TEST_ROWS)
    raise DataError(
        f"No row of {counted(len(parts.train), 'row')} can be held out to choose and to judge by.",
        expected="shares for validation or test, and two rows or more of some class.",
        action="add rows, or name a file of test rows with --set data.test=...",
    )


def _open_shares(parts: Parts, shares: tuple[float, float, float]) -> tuple[float, float, float]:
    """The shares with nothing for the parts that were given; some training rows choose where none are kept for it."""
    train, validation, test = shares
    if validation == 0 and parts.validation is None and (test > 0 or parts.test is not None):
        train, validation = (1 - LEAST_HELD_OUT) * train, LEAST_HELD_OUT * train
    if parts.validation is not None:
        return train / (train + test), 0.0, test / (train + test)
    if parts.test is not None:
        held_out = min(validation / (train + validation), MOST_HELD_OUT_ROWS / len(parts.train))
        return 1 - held_out, held_out, 0.0
    return train, validation, test


def _with_unlabeled(parts: Parts, recipe: DataRecipe, columns: Columns) -> tuple[Parts, tuple[Input, ...]]:
    """The unlabeled texts that the recipe names, and the parts with what there is to say about them."""
    if recipe.unlabeled is None:
        return parts, ()
    if len(columns.texts) > 1:
        raise RecipeError("data.unlabeled is given with pairs of texts.", expected="labelled pairs alone.")
    texts, findings = read_unlabeled(recipe.unlabeled, recipe.file_options, columns.texts[0])
    cleaning = recipe.clean
    texts, done = clean_unlabeled(texts, parts, normalize=cleaning.normalize, deduplicate=cleaning.deduplicate)
    return parts.saying(*findings, *done), texts


def _all_labels(labels: Sequence[str], targets: Iterable[Target], task: Task) -> Iterator[str]:
    """The labels of all rows; none of targets that are numbers."""
    for target in targets if labels else ():
        yield from (labels[place] for place in task.places(target))


def _unlearnt(labels: Sequence[str], train: Part, named: set[int], task: Task) -> tuple[str, ...]:
    """A sentence on labels that no training row has: of rows with several, a split can give each its part of one."""
    seen = {place for target in train.targets for place in task.places(target)} if labels else set()
    missing = [repr(labels[place]) for place in sorted(named - seen)]
    sentence = f"The split left no training row of {', '.join(missing)}: never learnt, more rows help."
    return (sentence,) if missing else ()


def _all_rows(parts: Parts) -> tuple[Rows, Rows, Rows]:
    nothing = Rows((), ())
    return parts.train, parts.validation or nothing, parts.test or nothing


def _contents(files: Contents | None, parts: Iterable[Part]) -> tuple[tuple[str, ...], ...]:
    """The digest of each row's file, by part."""
    return () if files is None else tuple(tuple(files.digests[str(text)] for text in part.texts) for part in parts)


def _digest(
    labels: Sequence[str], parts: Sequence[Part], unlabeled: Sequence[Input], contents: Sequence[Sequence[str]] = ()
) -> str:
    # Left out where there are none, so that a data set without them keeps the digest it had before there could be.
    more = [list(unlabeled)] if unlabeled else []
    inputs: Sequence[Sequence[Input]] = contents or [
        part.texts for part in parts
    ]  # wherever files lie, the same ones are the same rows
    rows = [[texts, part.targets] for texts, part in zip(inputs, parts, strict=True)]
    content = json.dumps([list(labels), *rows, *more])
    return "sha256:" + hashlib.sha256(content.encode("ascii")).hexdigest()
