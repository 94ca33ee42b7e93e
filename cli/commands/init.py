"""`edgetune init`: a look at the data becomes a commented recipe that repeats exactly what was found.

What is seen and written is the task's own affair (cli/look.py); here the task is chosen and the file written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.commands.options import json_option, print_json, without_chatter
from edgetune.commands.recipe_options import data_values, look_options, tell_choice
from edgetune.serve.dependencies import require
from edgetune.serve.errors import WorkError
from edgetune.serve.tasks_report import SEVERAL_TASKS
from edgetune.writing import write_text

if TYPE_CHECKING:
    from edgetune.look import Look
    from edgetune.several.look import SeveralLook


@click.command(short_help="Write a commented recipe from a look at the data.")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option(
    *("-o", "--out", "recipe"),
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("recipe.yaml"),
    help="Recipe file to write.",
)
@click.option(
    "--base", help="Pretrained model: a folder, a packaged model or a hub id.", show_default="one that suits the task"
)
@look_options
@click.option("--force", is_flag=True, help="Replace the recipe if it exists.")
@json_option
def command(
    data: tuple[str, ...],
    recipe: Path,
    base: str | None,
    task: str | None,
    text: str | None,
    label: str | None,
    settings: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Look at DATA and write a recipe with what was found.

    DATA is a .csv, .tsv, .json, .jsonl, .parquet or .txt file, a folder of such parts (train, validation, test), a
    folder with one sub-folder of .txt files a class, or the id of a data set on the hub. Labelled texts give the
    recipe of a classifier; chats, instructions, prompts with completions, or a decoder as the base that of a
    language model. Several data sets, each as NAME=DATA, give the recipe of as many tasks on one encoder.

    \b
    Example:
      edgetune init tickets.csv -o tickets.yaml
      edgetune init intent=intents.csv mood=mood.tsv -o desk.yaml
      edgetune init chats.jsonl --base models/SmolLM -o talk.yaml
      edgetune build tickets.yaml
    """
    if recipe.exists() and not force:
        raise WorkError(
            f"{recipe} exists already.",
            expected="a name that is free.",
            action="name another with -o, or pass --force.",
            cost="--force replaces the recipe that is there.",
        )
    require("build", "pydantic", "yaml")
    from edgetune.look import look_at
    from edgetune.several.look import look_at_all, named_data
    from edgetune.task_choice import TaskChoice, choose_task

    flags = {"base": base, "task": task, "data.path": data[0], "data.text": text, "data.label": label}
    look: Look | SeveralLook
    with without_chatter():
        if named := named_data(data):
            _refuse_one_task({"--task": task, "--text": text, "--label": label, "--set": settings})
            choice, look = TaskChoice(SEVERAL_TASKS), look_at_all(named, base)
        else:
            values = data_values({key: value for key, value in flags.items() if value is not None}, settings)
            choice = choose_task(values)
            look = look_at(choice.task, values["data"], values.get("base"))
    write_text(recipe, look.recipe_text(recipe), option="-o")
    if as_json:
        print_json({"recipe": str(recipe), "task": choice.task, **look.facts})
        return
    tell_choice(choice)
    click.echo(f"Wrote {recipe}.")
    for finding in look.findings:
        click.echo(f"  {finding}")
    click.echo(f"Next: edgetune build {recipe}")


def _refuse_one_task(options: Mapping[str, object]) -> None:
    """Stop at options that say something of one data set where there are several.

    Raises:
        click.UsageError: naming them.
    """
    if given := [name for name, value in options.items() if value]:
        raise click.UsageError(f"{', '.join(given)} is of one data set; edit the recipe that is written.")
