"""`edgetune init`: a look at the data becomes a commented recipe that repeats exactly what was found.

Reads through the same code as a build, so that what is said here is what a build will do.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.commands.options import json_option, print_json
from edgetune.serve.errors import WorkError

if TYPE_CHECKING:
    from edgetune.tune.dataset import Dataset
    from edgetune.tune.sources import Tables

DEFAULT_BASE = "all-MiniLM-L6-v2"

TEMPLATE = """\
# A recipe for edgetune, written from a look at {source}. To run it: edgetune build {recipe}
#
# What was found:
{findings}

# A folder, a packaged model or a hub id, looked for in this order.
base: {base}
task: text-classification

data:
  path: {path}
  text: {text}
  label: {label}
{dialect}  # Training, validation and test, by class; only for the parts that are not given.
  # A test part of your own: add test: FILE (and validation: FILE).
  split: [0.7, 0.15, 0.15]
  clean: {{deduplicate: true, normalize: true}}

tune:
  method: auto      # the better of probe and lora; or probe (seconds), lora, freeze, full
  pooling: auto     # as the checkpoint was trained
  epochs: auto

compress:
  schemes: auto     # what suits model, data and machine: edgetune compress --list

gate:
  max_drop: 0.01    # a bundle may lose one point of the metric, no more
  confidence: 0.95

benchmark: {{}}
seed: 0
out: {out}
"""


@click.command(short_help="Write a commented recipe from a look at the data.")
@click.argument("data")
@click.option(
    *("-o", "--out", "recipe"),
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("recipe.yaml"),
    show_default=True,
    help="The recipe to write.",
)
@click.option("--base", default=DEFAULT_BASE, show_default=True, help="The base model: folder, package or hub id.")
@click.option("--text", help="The column of texts, where it cannot be guessed.")
@click.option("--label", help="The column of labels, where it cannot be guessed.")
@click.option("--force", is_flag=True, help="Replace the recipe if it exists.")
@json_option
def command(
    data: str, recipe: Path, base: str, text: str | None, label: str | None, force: bool, as_json: bool
) -> None:
    """Look at DATA and write a recipe with what was found.

    DATA is a .csv, .tsv, .json, .jsonl or .parquet file, a folder of such parts (train, validation, test), a
    folder with one sub-folder of .txt files a class, or the id of a data set on the hub.

    \b
    Example:
      edgetune init tickets.csv -o tickets.yaml
      edgetune build tickets.yaml
    """
    if recipe.exists() and not force:
        raise WorkError(
            f"{recipe} exists already.",
            expected="a name that is free.",
            action="name another with -o, or pass --force.",
            cost="--force replaces the recipe that is there.",
        )
    from edgetune.tune.dataset import DataRecipe, Dataset, read_tables

    wanted = DataRecipe(path=data, text=text, label=label)
    tables = read_tables(wanted)
    dataset = Dataset.of_tables(tables, wanted, seed=0)
    _write(recipe, recipe_text(dataset, tables, base=base, recipe=recipe))
    if as_json:
        print_json(_summary(dataset, recipe))
        return
    click.echo(f"Wrote {recipe}.")
    for finding in _findings(dataset):
        click.echo(f"  {finding}")
    click.echo(f"Next: edgetune build {recipe}")


def recipe_text(dataset: Dataset, tables: Tables, *, base: str, recipe: Path) -> str:
    """The recipe as YAML with comments; `recipe` is where it will stand."""
    return TEMPLATE.format(
        source=_one_line(dataset.source),
        recipe=recipe,
        findings="\n".join(f"#   {_one_line(finding)}" for finding in _findings(dataset)),
        base=_scalar(base),
        path=_scalar(dataset.source),
        text=_scalar(dataset.text_column),
        label=_scalar(dataset.label_column),
        dialect=_dialect(tables),
        out=_scalar(f"bundles/{_stem(dataset.source)}"),
    )


def _dialect(tables: Tables) -> str:
    """The lines of the data section without which a build would have to guess again."""
    lines = "" if tables.train.header else "  header: false     # the first line is a row\n"
    parts = (tables.train, tables.validation, tables.test)
    encodings = {table.encoding for table in parts if table is not None}
    # The recipe has one encoding for all parts: where they differ, each is detected again.
    if len(encodings) == 1 and tables.train.encoding:
        lines += f"  encoding: {tables.train.encoding}  # a guess: look at a few texts\n"
    return lines


def _findings(dataset: Dataset) -> list[str]:
    rows = _class_rows(dataset)
    (largest, most), (smallest, least) = rows[0], rows[-1]
    classes = f"{len(rows):,} classes, from {least:,} rows ({smallest!r}) to {most:,} rows ({largest!r})."
    return [*dataset.findings, classes]


def _class_rows(dataset: Dataset) -> list[tuple[str, int]]:
    """Classes and their rows in all parts, the largest first."""
    counts = Counter((*dataset.train.labels, *dataset.validation.labels, *dataset.test.labels))
    return [(dataset.labels[number], count) for number, count in counts.most_common()]


def _summary(dataset: Dataset, recipe: Path) -> dict[str, object]:
    return {
        "recipe": str(recipe),
        "source": dataset.source,
        "text_column": dataset.text_column,
        "label_column": dataset.label_column,
        "rows": {name: len(getattr(dataset, name)) for name in ("train", "validation", "test")},
        "classes": dict(_class_rows(dataset)),
        "digest": dataset.digest,
        "findings": list(dataset.findings),
    }


def _stem(source: str) -> str:
    path = Path(source).expanduser().resolve()
    return path.name if path.is_dir() else path.stem


def _scalar(value: str) -> str:
    """`value` as YAML writes it on one line, in quotes where it needs them."""
    import yaml

    text: str = yaml.safe_dump(value, allow_unicode=True, width=float("inf"), default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _one_line(text: str) -> str:
    """A comment must not end early: no line breaks and no control characters."""
    return "".join(character if character.isprintable() else " " for character in " ".join(text.split()))


def _write(path: Path, text: str) -> None:
    """Write beside `path`, then rename: a recipe is whole or not there."""
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(path)
    except OSError as error:
        if beside.exists():
            beside.unlink()
        raise WorkError(
            f"{path} cannot be written: {error.strerror or error}.",
            expected="a folder that this user may write to.",
            action="name another place with -o.",
        ) from error
