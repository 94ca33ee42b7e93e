"""The data recipe and the data set: training, validation and test texts with their labels, in a fixed order.

The one place where reading, choosing columns, cleaning and splitting come together. What was found on the way
is kept as sentences, so that nothing is guessed, dropped or held out in silence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from edgetune.serve.errors import WorkError
from edgetune.tune.data.classes import check_classes, ordered_labels, without_empty_parts
from edgetune.tune.data.cleaning import Parts, Rows, clean, counted
from edgetune.tune.data.columns import Columns, choose_columns, require_column
from edgetune.tune.data.reading import Table
from edgetune.tune.data.source_recipe import SourceRecipe
from edgetune.tune.data.sources import Tables, read_parts
from edgetune.tune.data.split import split_rows
from edgetune.tune.data.unlabeled import clean_unlabeled, read_unlabeled

PART_NAMES = ("train", "validation", "test")
FACTS_NAME = "dataset.json"
UNLABELED_NAME = "unlabeled.jsonl"
# Enough to tell models apart by 2 to 3 points; beyond it a row is worth more as a training row.
MOST_HELD_OUT_ROWS = 1_000


class DataRecipe(SourceRecipe):
    """Where the labelled texts are and how they are read."""

    rows: ClassVar[str] = "labelled texts"

    unlabeled: str | None = Field(
        default=None,
        description="More texts of the domain, without labels, for schemes that learn from texts alone: "
        "a .txt file with a text a line, or any source that path may name.",
    )
    text: str | None = Field(default=None, description="The column of texts; without it, guessed and said.")
    label: str | None = Field(default=None, description="The column of labels; without it, guessed and said.")


@dataclass(frozen=True)
class Part:
    """Texts and the class number of each: indices into the data set's labels."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """Rows to learn from, to choose by and to judge by, and the order of their labels.

    Args:
        labels: class names; a label's place is its class number.
        digest: "sha256:" and the digest of labels, parts and unlabeled texts: the same rows in the same order give
            the same.
        source: what the user named.
        findings: sentences on what was guessed, dropped, counted and split.
        unlabeled: more texts of the domain, none of which stands in the validation or test part; often empty.
    """

    train: Part
    validation: Part
    test: Part
    labels: tuple[str, ...]
    digest: str
    source: str
    text_column: str
    label_column: str
    findings: tuple[str, ...]
    unlabeled: tuple[str, ...] = ()

    @classmethod
    def load(cls, recipe: DataRecipe, *, seed: int, label_order: Sequence[str] | None = None) -> Dataset:
        """Read, clean and split the data that `recipe` names.

        Args:
            seed: of the split.
            label_order: an order of the labels to keep, such as a base checkpoint's; ignored where it is not
                the same set as the labels found.

        Raises:
            DataError: the data cannot be read, has no clear columns, or cannot be learnt from.
        """
        return cls.of_tables(read_tables(recipe), recipe, seed=seed, label_order=label_order)

    @classmethod
    def of_tables(
        cls, tables: Tables, recipe: DataRecipe, *, seed: int, label_order: Sequence[str] | None = None
    ) -> Dataset:
        """As `load`, of tables that are already read."""
        columns = choose_columns(tables.train, recipe.text, recipe.label)
        parts = _select(tables, columns)
        parts = clean(parts, normalize=recipe.clean.normalize, deduplicate=recipe.clean.deduplicate)
        parts = without_empty_parts(parts)
        check_classes(parts, recipe.source)
        labels = ordered_labels(set(parts.train.labels), label_order)
        parts = _split(parts, labels, recipe.split, seed)
        parts, unlabeled = _with_unlabeled(parts, recipe, columns)
        train, validation, test = (_numbered(rows, labels) for rows in _all_rows(parts))
        digest = _digest(labels, (train, validation, test), unlabeled)
        return cls(
            *(train, validation, test, labels, digest, recipe.source),
            *(columns.text, columns.label, parts.findings, unlabeled),
        )

    def save(self, folder: Path) -> None:
        """Write one .jsonl a part, one of the unlabeled texts where there are any, and the facts.

        The facts come last, so that a folder with facts is whole.

        Raises:
            WorkError: the folder cannot be written.
        """
        facts = {
            "labels": self.labels,
            "digest": self.digest,
            "source": self.source,
            "text_column": self.text_column,
            "label_column": self.label_column,
            "findings": self.findings,
            "rows": {name: len(getattr(self, name)) for name in (*PART_NAMES, "unlabeled")},
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in PART_NAMES:
                (folder / f"{name}.jsonl").write_text(_lines(getattr(self, name)), encoding="utf-8", newline="\n")
            (folder / UNLABELED_NAME).unlink(missing_ok=True)
            if self.unlabeled:
                lines = _text_lines(self.unlabeled)
                (folder / UNLABELED_NAME).write_text(lines, encoding="utf-8", newline="\n")
            text = json.dumps(facts, ensure_ascii=False, indent=2)
            (folder / FACTS_NAME).write_text(text + "\n", encoding="utf-8", newline="\n")
        except OSError as error:
            raise WorkError(
                f"The data set cannot be written to {folder}: {error.strerror or error}.",
                expected="a folder that this user may write to, with room left.",
                action="free some room or name another folder.",
            ) from error

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Open what `save` wrote.

        Raises:
            WorkError: the folder holds no data set, or its rows are not those that were saved.
        """
        try:
            facts = json.loads((folder / FACTS_NAME).read_text(encoding="utf-8"))
            train, validation, test = (_part_of_lines(folder / f"{name}.jsonl") for name in PART_NAMES)
            labels, findings = tuple(facts["labels"]), tuple(facts["findings"])
            digest, source = facts["digest"], facts["source"]
            columns = Columns(facts["text_column"], facts["label_column"])
            unlabeled = _texts_of_lines(folder / UNLABELED_NAME) if facts["rows"].get("unlabeled") else ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _no_dataset(folder, f"{type(error).__name__}: {error}") from error
        if _digest(labels, (train, validation, test), unlabeled) != digest:
            raise _no_dataset(folder, "its rows are not those that were saved")
        parts = (train, validation, test)
        return cls(*parts, labels, digest, source, columns.text, columns.label, findings, unlabeled)


def read_tables(recipe: DataRecipe) -> Tables:
    """Read what `recipe` names, and nothing more."""
    return read_parts(recipe.named, recipe.said)


def _select(tables: Tables, columns: Columns) -> Parts:
    """The two columns of each part, after what there is to say about how they were read."""
    given = [table for table in (tables.train, tables.validation, tables.test) if table is not None]
    findings = [f"Read {counted(len(table), 'row')} from {table.source}." for table in given]
    findings += [finding for table in given for finding in table.findings]

    def rows(table: Table | None) -> Rows | None:
        if table is None:
            return None
        require_column(table, columns.text, "text")
        require_column(table, columns.label, "label")
        return Rows(table.columns[columns.text], table.columns[columns.label])

    train = Rows(tables.train.columns[columns.text], tables.train.columns[columns.label])
    return Parts(train, rows(tables.validation), rows(tables.test), (*findings, *columns.findings))


def _split(parts: Parts, labels: Sequence[str], shares: tuple[float, float, float], seed: int) -> Parts:
    """Split off the parts that were not given."""
    if parts.validation is not None and parts.test is not None:
        return parts
    before = len(parts.train)
    numbers = {label: number for number, label in enumerate(labels)}
    classes = [numbers[label] for label in parts.train.labels]
    split = split_rows(classes, _open_shares(parts, shares), seed=seed)
    validation = parts.validation or parts.train.take(split.validation.tolist())
    test = parts.test or parts.train.take(split.test.tolist())
    made = Parts(parts.train.take(split.train.tolist()), validation, test, parts.findings)
    took = [
        counted(len(rows), f"{name} row")
        for name, rows, given in (("validation", validation, parts.validation), ("test", test, parts.test))
        if given is None
    ]
    return made.saying(
        f"Split {counted(before, 'row')} by class with seed {seed}: "
        f"{counted(len(made.train), 'training row')}, {', '.join(took)}."
    )


def _open_shares(parts: Parts, shares: tuple[float, float, float]) -> tuple[float, float, float]:
    """The shares with nothing for the parts that were given."""
    train, validation, test = shares
    if parts.validation is not None:
        return train / (train + test), 0.0, test / (train + test)
    if parts.test is not None:
        held_out = min(validation / (train + validation), MOST_HELD_OUT_ROWS / len(parts.train))
        return 1 - held_out, held_out, 0.0
    return shares


def _with_unlabeled(parts: Parts, recipe: DataRecipe, columns: Columns) -> tuple[Parts, tuple[str, ...]]:
    """The unlabeled texts that the recipe names, and the parts with what there is to say about them."""
    if recipe.unlabeled is None:
        return parts, ()
    read, said = read_unlabeled(recipe.unlabeled, recipe.said, columns.text)
    cleaning = recipe.clean
    texts, done = clean_unlabeled(read, parts, normalize=cleaning.normalize, deduplicate=cleaning.deduplicate)
    return parts.saying(*said, *done), texts


def _all_rows(parts: Parts) -> tuple[Rows, Rows, Rows]:
    nothing = Rows((), ())
    return parts.train, parts.validation or nothing, parts.test or nothing


def _numbered(rows: Rows, labels: Sequence[str]) -> Part:
    numbers = {label: number for number, label in enumerate(labels)}
    return Part(rows.texts, tuple(numbers[label] for label in rows.labels))


def _digest(labels: Sequence[str], parts: Iterable[Part], unlabeled: Sequence[str]) -> str:
    # Left out where there are none, so that a data set without them keeps the digest it had before there could be.
    more = [list(unlabeled)] if unlabeled else []
    content = json.dumps([list(labels), *([part.texts, part.labels] for part in parts), *more])
    return "sha256:" + hashlib.sha256(content.encode("ascii")).hexdigest()


def _lines(part: Part) -> str:
    rows = zip(part.texts, part.labels, strict=True)
    return "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows)


def _text_lines(texts: Iterable[str]) -> str:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


def _texts_of_lines(path: Path) -> tuple[str, ...]:
    with path.open(encoding="utf-8", newline="\n") as lines:
        return tuple(json.loads(line)["text"] for line in lines)


def _part_of_lines(path: Path) -> Part:
    with path.open(encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    return Part(tuple(row["text"] for row in rows), tuple(row["label"] for row in rows))


def _no_dataset(folder: Path, reason: str) -> WorkError:
    return WorkError(
        f"{folder} holds no data set that can be opened: {reason}.",
        expected=f"{FACTS_NAME} and a .jsonl file a part, as they were saved.",
        action="build again with --fresh.",
        cost="the data set is read again: seconds.",
    )
