"""Options that give a recipe, shared by `build` and the stage commands: a file, flags over it, `--set` over both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgetune.commands.options import without_chatter
from edgetune.serve.dependencies import require
from edgetune.tasks import TASKS

if TYPE_CHECKING:
    from edgetune.recipe import Recipe
    from edgetune.task_choice import TaskChoice

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("recipe", required=False, type=click.Path(path_type=Path, dir_okay=False)),
    click.option("--base", help="Pretrained model: a folder, a packaged model or a hub id."),
    click.option("--data", help="Labelled rows, texts or chats: csv, tsv, json, jsonl, parquet, a folder or a hub id."),
    click.option("--task", help=f"Task to learn: {', '.join(TASKS)}.", show_default="guessed from data and base"),
    click.option("--method", help="Tuning method, such as probe, lora or full.", show_default="the task's"),
    click.option("--scheme", multiple=True, help="Compression scheme; may be repeated.", show_default="all that suit"),
    click.option(
        "--target", multiple=True, help="Class of processors to prove it for; may be repeated.", show_default="here"
    ),
    click.option("--out", help="Folder of the bundle.  [default: bundles/model]"),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Device that trains.  [default: auto]"),
    click.option("--seed", type=int, help="Seed of split, training and test slice.  [default: 0]"),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY.PATH=VALUE",
        help="Key of the recipe and its value; may be repeated.",
    ),
    click.option("--allow-pickle", is_flag=True, help="Open .bin checkpoints, which can run code when opened."),
    click.option("--fresh", is_flag=True, help="Run finished stages again."),
    click.option("-v", "--verbose", is_flag=True, help="Show the messages of the libraries."),
)

# flag: recipe key
_KEYS = {
    "base": "base",
    "data": "data.path",
    "task": "task",
    "method": "tune.method",
    "scheme": "compress.schemes",
    "target": "target",
    "out": "out",
    "device": "device",
    "seed": "seed",
    "allow_pickle": "tune.allow_pickle",
}


def recipe_options(function: F) -> F:
    """All recipe options; the command takes them as one dict through `load_recipe`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def load_recipe(recipe: Path | None, settings: tuple[str, ...], flags: dict[str, Any]) -> Recipe:
    """The recipe file with the flags laid over it, and `--set` over both; says so where its task was guessed.

    Raises:
        RecipeError: with all faults at once.
    """
    require("build", "pydantic", "rich", "yaml")
    from edgetune.recipe import parse_settings, read_recipe
    from edgetune.tune.training.processes import is_main

    values = {key: flags[flag] for flag, key in _KEYS.items() if flags.get(flag) not in (None, (), False)}
    values |= {key: list(values[key]) for key in ("compress.schemes", "target") if key in values}
    with without_chatter():
        loaded, choice = read_recipe(recipe, {**values, **parse_settings(settings)})
    if is_main():
        tell_choice(choice)
    return loaded


def tell_choice(choice: TaskChoice) -> None:
    """Say on stderr which task was guessed, and why."""
    if choice.reason:
        click.echo(choice.reason, err=True)
