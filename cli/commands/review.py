"""`edgetune review`: rows that a person should look at before a build, as a table to decide in."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.commands.options import json_option, print_json, without_chatter
from edgetune.commands.recipe_options import data_values, look_options, tell_choice
from edgetune.serve.dependencies import require
from edgetune.serve.errors import RecipeError, WorkError
from edgetune.tasks import TASKS
from edgetune.writing import write_text

if TYPE_CHECKING:
    from edgetune.review import Reviewed


@click.command(short_help="List rows that are probably mislabelled or nearly repeat others.")
@click.argument("data")
@click.option(
    *("-o", "--out", "out"),
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("review.csv"),
    help="CSV file to write.",
)
@look_options
@click.option(
    "--near",
    type=click.FloatRange(0.1, 1.0),
    default=0.8,
    help="Share of the characters' trigrams that near duplicates have in common, at least.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@json_option
def command(
    data: str,
    out: Path,
    task: str | None,
    text: str | None,
    label: str | None,
    near: float,
    settings: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Look for rows of DATA that are probably mislabelled, or nearly repeat rows of another part or of their own.

    Labels are held against a linear model of n-grams that has not learnt the row. Write relabel or drop into column
    action of the file (relabel takes the label in column suggested), and give it to the build as data.corrections.
    Nothing is changed without.

    \b
    Example:
      edgetune review tickets.csv -o review.csv
      edgetune build tickets.yaml --set data.corrections=review.csv
    """
    if out.exists() and not force:
        raise WorkError(
            f"{out} exists already.",
            expected="a name that is free: decisions may stand in it",
            action="name another with -o, or pass --force.",
            cost="--force replaces the file that is there.",
        )
    require("build", "pydantic", "yaml")
    require("review", "cleanlab", "datasketch")
    from edgetune.review import review
    from edgetune.task_choice import choose_task

    flags = {"task": task, "data.path": data, "data.text": text, "data.label": label}
    values = data_values({key: value for key, value in flags.items() if value is not None}, settings)
    with without_chatter():
        choice = choose_task(values)
        if TASKS[choice.task].family != "once":
            raise RecipeError(
                f"{data} is data of {choice.task}.",
                expected="labelled texts: of a language model's rows nothing is compared",
                action="name the task with --task where it was guessed wrong",
            )
        reviewed = review(choice.task, values["data"], near)
    write_text(out, _csv(reviewed), option="-o")
    if as_json:
        print_json({"review": str(out), "task": choice.task, **reviewed.facts})
        return
    tell_choice(choice)
    _show(reviewed, out)


def _csv(reviewed: Reviewed) -> str:
    """With a byte order mark, by which spreadsheets know UTF-8."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(reviewed.columns)
    writer.writerows(reviewed.cells)
    return "\ufeff" + stream.getvalue()


def _show(reviewed: Reviewed, out: Path) -> None:
    for line in reviewed.lines:
        click.echo(line)
    if not reviewed.items:
        click.echo(f"Wrote {out}, which has no row.")
        return
    click.echo(f"Wrote {out}, a line each. Fill its column action with relabel or drop, then:")
    click.echo(f"Next: edgetune build RECIPE --set data.corrections={out}")
