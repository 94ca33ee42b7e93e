"""Options that give a recipe, shared by `build` and the stage commands: a file, flags over it, `--set` over both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgetune.commands.options import without_chatter
from edgetune.serve.dependencies import require
from edgetune.serve.errors import RecipeError
from edgetune.tasks import TASKS

if TYPE_CHECKING:
    from edgetune.recipe import Recipe
    from edgetune.task_choice import TaskChoice

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("recipe", required=False, type=click.Path(path_type=Path, dir_okay=False)),
    click.option("--base", help="Pretrained model: a folder, a packaged model or a hub id."),
    click.option(
        "--from",
        "earlier",
        metavar="BUILD",
        help="Earlier build to go on from, in place of a base: its bundle, its work folder, or a tuned model.",
    ),
    click.option("--remember", metavar="DATA", help="Rows of the earlier build's task; what is forgotten is reported."),
    click.option("--replay", type=click.FloatRange(0, 1), help="Share of --remember to learn again.  [default: 0]"),
    click.option("--data", help="Labelled rows, texts or chats: csv, tsv, json, jsonl, parquet, a folder or a hub id."),
    click.option("--task", help=f"Task to learn: {', '.join(TASKS)}.", show_default="guessed from data and base"),
    click.option("--method", help="Tuning method, such as probe, lora or full.", show_default="the task's"),
    click.option(
        "--objective",
        help="Objective that is learnt of the rows: sft, dpo, kto, orpo, grpo, rloo or reward.",
        show_default="sft",
    ),
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
    "remember": "data.remember",
    "replay": "data.replay",
    "data": "data.path",
    "task": "task",
    "method": "tune.method",
    "objective": "tune.objective",
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


# What a look at data may be told of it.
_LOOK_OPTIONS = (
    click.option("--task", help=f"Task to learn: {', '.join(TASKS)}.", show_default="guessed"),
    click.option("--text", help="Column of texts.", show_default="guessed"),
    click.option("--label", help="Column of labels.", show_default="guessed"),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="data.KEY=VALUE",
        help="Key of the data section and its value; may be repeated.",
    ),
)


def look_options(function: F) -> F:
    """The options of a command that only looks at data; `data_values` makes a recipe's values of them."""
    for option in reversed(_LOOK_OPTIONS):
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
    if flags.get("earlier") is not None:
        if "base" in values:
            raise click.UsageError("--base and --from name two models to start from; give one.")
        values["base"] = str(tuned_model_folder(Path(flags["earlier"])))
    values |= {key: list(values[key]) for key in ("compress.schemes", "target") if key in values}
    with without_chatter():
        loaded, choice = read_recipe(recipe, {**values, **parse_settings(settings)})
    if is_main():
        tell_choice(choice)
    return loaded


def tuned_model_folder(build: Path) -> Path:
    """The merged model of an earlier build, by its bundle, its work folder, its tune stage or the model itself.

    Raises:
        RecipeError: there is none.
    """
    from edgetune.serve.errors import RecipeError

    stages = (build, build / "tune", build.with_name(f"{build.name}.work") / "tune", build.parent)
    for stage in stages:
        if (stage / "tuned.json").is_file() and (stage / "model" / "config.json").is_file():
            return stage / "model"
    raise RecipeError(
        f"{build} is no build that could be gone on from: no tuned model lies in it, or in its work folder.",
        expected="a bundle with its .work folder beside it, a work folder, or its tune folder",
        action="name one of these with --from; a bundle alone has no weights that could be trained",
    )


def tell_choice(choice: TaskChoice) -> None:
    """Say on stderr which task was guessed, and why."""
    if choice.reason:
        click.echo(choice.reason, err=True)


def data_values(flags: dict[str, object], settings: tuple[str, ...]) -> dict[str, Any]:
    """Base, task and data section as the options of a command that only looks at data give them.

    Raises:
        RecipeError: a setting is of another section, or has no value.
    """
    from edgetune.recipe import parse_settings, recipe_values

    values = recipe_values(None, {**flags, **parse_settings(settings)})
    others = sorted(set(values) - {"base", "task", "data"})
    if others:
        raise RecipeError(
            f"--set gives values of {', '.join(others)}.",
            expected="keys of the data section, such as data.format=alpaca: a look at data settles no more",
            action="say it to edgetune build",
        )
    return values
