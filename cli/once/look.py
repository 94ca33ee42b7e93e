"""What a look at labelled rows shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgetune.look import Look, given_values
from edgetune.once.recipe import OnceRecipe
from edgetune.tune.data.dataset import Dataset, read_tables
from edgetune.tune.data.sources import Tables

FIRST_BASE = "all-MiniLM-L6-v2"

SPLIT_REMARK = """\
Training, validation and test, by class; only for the parts that are not given.
  # A test part of your own: add test: FILE (and validation: FILE)."""

SECTIONS = """\
tune:
  method: auto      # the better of probe and lora; or probe (seconds), lora, freeze, full
  pooling: auto     # as the checkpoint was trained
  epochs: auto

compress:
  schemes: auto     # what suits model, data and machine: edgetune compress --list

gate:
  max_drop: 0.01    # a bundle may lose one point of the metric, no more
  confidence: 0.95
"""


def look(task: str, data: Mapping[str, Any], base: str | None) -> Look:
    """Read the data; see `edgetune.look.look_at`."""
    base = base or FIRST_BASE
    recipe = OnceRecipe.of_values({"base": base, "task": task, "data": data}, None).data
    tables = read_tables(recipe)
    dataset = Dataset.of_tables(tables, recipe, seed=0)
    classes = _class_rows(dataset)
    encoding = _guessed_encoding(tables)
    values: dict[str, Any] = {
        **given_values(recipe),
        "text": dataset.text_column,
        "label": dataset.label_column,
        **({} if tables.train.header else {"header": False}),
        **({"encoding": encoding} if encoding else {}),
    }
    remarks = {
        "header": "the first line is a row",
        **({"encoding": "a guess: look at a few texts"} if encoding else {}),
    }
    facts = {
        "source": recipe.source,
        "text_column": dataset.text_column,
        "label_column": dataset.label_column,
        "rows": {name: len(getattr(dataset, name)) for name in ("train", "validation", "test")},
        "classes": dict(classes),
        "digest": dataset.digest,
        "findings": list(dataset.findings),
    }
    return Look(
        task=task,
        base=base,
        recipe=recipe,
        findings=(*dataset.findings, _class_finding(classes)),
        facts=facts,
        base_remark="A folder, a packaged model or a hub id, looked for in this order.",
        values=values,
        remarks=remarks,
        split_remark=SPLIT_REMARK,
        hints="",
        sections=SECTIONS,
    )


def _class_finding(classes: list[tuple[str, int]]) -> str:
    (largest, most), (smallest, least) = classes[0], classes[-1]
    return f"{len(classes):,} classes, from {least:,} rows ({smallest!r}) to {most:,} rows ({largest!r})."


def _class_rows(dataset: Dataset) -> list[tuple[str, int]]:
    """Classes and their rows in all parts, the largest first."""
    parts = (dataset.train, dataset.validation, dataset.test)
    counts = Counter(label for part in parts for label in part.labels)
    return [(dataset.labels[number], count) for number, count in counts.most_common()]


def _guessed_encoding(tables: Tables) -> str | None:
    """The recipe has one encoding for all parts: where they differ, each is detected again."""
    encodings = {table.encoding for table in (tables.train, tables.validation, tables.test) if table is not None}
    return tables.train.encoding if len(encodings) == 1 else None
