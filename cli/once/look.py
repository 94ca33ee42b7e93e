"""What a look at labelled rows shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.look import Look, given_values
from edgetune.once.recipe import OnceRecipe
from edgetune.serve.errors import ModelError
from edgetune.tune.data.columns import Columns
from edgetune.tune.data.coverage import Coverage, coverage_of_folder
from edgetune.tune.data.dataset import Dataset, read_tables
from edgetune.tune.data.sources import Tables
from edgetune.tune.models.base import PACKAGED, find_base
from edgetune.tune.ngrams.preview import preview_linear
from edgetune.tune.tasks import TASKS

FIRST_BASE = "all-MiniLM-L6-v2"
FIRST_PICTURE_BASE = "google/mobilenet_v2_1.0_224"

SPLIT_REMARK = """\
Training, validation and test, stratified; only for the parts that are not given.
  # A test part of your own: add test: FILE (and validation: FILE)."""

SECTIONS = """\
tune:
  method: auto      # the probe, or all layers where they gain; or probe (seconds), lora, layers, freeze, full
  pooling: auto     # as the checkpoint was trained
  epochs: auto

compress:
  schemes: auto     # what suits model, data and machine: edgetune compress --list

gate:
  {gate}
  confidence: 0.95
"""

GATES = {
    True: "max_drop: 0.01    # a bundle may lose one point of the metric, no more",
    False: "max_rise: 0.02    # the error may rise by two percent, no more",
}


def look(task: str, data: Mapping[str, Any], base: str | None) -> Look:
    """Read the data; see `edgetune.look.look_at`."""
    base = base or (FIRST_BASE if TASKS[task].reads_text else FIRST_PICTURE_BASE)
    recipe = OnceRecipe.of_values({"base": base, "task": task, "data": data}, None).data
    tables = read_tables(recipe)
    kind = TASKS[task]
    dataset = Dataset.of_tables(tables, recipe, kind, seed=0)
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    # Where there is no row to judge by alone, one part stands for both.
    once = parts.values() if dataset.test != dataset.validation else (dataset.train, dataset.validation)
    summary = kind.describe(dataset.labels, [target for part in once for target in part.targets])
    coverage = _coverage(base, dataset, windows=kind.per_token) if kind.reads_text else None
    findings = (*dataset.findings, *(coverage.findings if coverage else ()))
    preview = preview_linear(dataset, kind, "", seed=0)
    linear = (preview.finding,) if preview else ()
    encoding = _guessed_encoding(tables)
    values: dict[str, Any] = {
        **given_values(recipe),
        **_column_values(dataset.columns, "text" if kind.reads_text else "image"),
        **({} if tables.train.header else {"header": False}),
        **({"encoding": encoding} if encoding else {}),
    }
    remarks = {
        **({} if recipe.header or tables.train.header else {"header": "the first line is a row"}),
        **({"encoding": "a guess: look at a few texts"} if encoding else {}),
    }
    facts = {
        "source": recipe.source,
        "text_columns": list(dataset.columns.texts),
        "label_columns": list(dataset.columns.labels),
        "rows": {name: len(part) for name, part in parts.items()},
        **summary.facts,
        **({"cut_share": coverage.cut_share, "unknown_share": coverage.unknown_share} if coverage else {}),
        "linear": preview.facts if preview else None,
        "digest": dataset.digest,
        "findings": list(findings),
    }
    return Look(
        task=task,
        base=base,
        recipe=recipe,
        findings=(*findings, summary.finding, *linear),
        facts=facts,
        base_remark="A folder, a packaged model or a hub id, looked for in this order.",
        values=values,
        remarks=remarks,
        split_remark=SPLIT_REMARK,
        hints="",
        sections=SECTIONS.format(gate=GATES[kind.metric("").higher_is_better]),
    )


def _coverage(base: str, dataset: Dataset, *, windows: bool) -> Coverage | None:
    """What the base takes in of the training texts, where it is on this machine; nothing is fetched."""
    folder = Path(base)
    if not folder.is_dir() and base in PACKAGED:
        try:
            folder = find_base(base).folder
        except ModelError:
            return None
    return coverage_of_folder(folder, dataset.train.texts, windows=windows)


def _column_values(columns: Columns, key: str) -> dict[str, Any]:
    """The columns as a recipe names them, that of inputs by `key`, so that a build does not have to guess them."""
    first, *others = columns.texts
    label = columns.labels[0] if len(columns.labels) == 1 else list(columns.labels)
    return {
        key: first,
        **dict(zip(("text_pair", "negative"), others, strict=False)),
        **({"label": label} if columns.labels else {}),
        **({"separator": columns.separator} if columns.separator else {}),
    }


def _guessed_encoding(tables: Tables) -> str | None:
    """The recipe has one encoding for all parts: where they differ, each is detected again."""
    encodings = {table.encoding for table in (tables.train, tables.validation, tables.test) if table is not None}
    return tables.train.encoding if len(encodings) == 1 else None
