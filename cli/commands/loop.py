"""`edgetune loop`: one turn from what people corrected to a better bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.commands.options import json_option, print_json
from edgetune.escaping import escaped, message
from edgetune.serve.dependencies import require
from edgetune.serve.feedback.reading import read_feedback

if TYPE_CHECKING:
    from edgetune.feedback.turn import TurnReport

NOT_REPLACED = 3


@click.command(name="loop")
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--feedback",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder that edgetune serve --feedback was given.",
)
@click.option("--model", help="Name of the model whose answers count.", show_default="all")
@click.option(
    "--accept",
    type=click.Choice(["better", "not-worse"]),
    default="better",
    help="Replace the bundle if the gain's 95% interval lies above 0, or if it does not reach below -gate.max_drop.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="Key of the recipe and its value; repeatable."
)
@click.option("-v", "--verbose", is_flag=True, help="Show the messages of the libraries.")
@json_option
def command(
    recipe: Path,
    folder: Path,
    model: str | None,
    accept: str,
    settings: tuple[str, ...],
    verbose: bool,
    as_json: bool,
) -> None:
    """Take one turn: corrected labels join RECIPE's data, a bundle is built and replaces the old one if it is better.

    Both bundles answer the same held-out rows, a share of the corrections among them. The old bundle is kept beside
    the new one as OUT.previous, rows and reports of the turns are in OUT.loop. Exit code 3: the old bundle stays.

    \b
    Example:
      edgetune loop recipe.yaml --feedback feedback
    """
    require("build", "pydantic", "rich", "yaml", "datasets", "torch", "transformers")
    feedback = read_feedback(folder, model)
    from rich.console import Console

    from edgetune.feedback.turn import NOTHING, REPLACED, Place, take_turn
    from edgetune.inputs import command_line
    from edgetune.progress import StageLines
    from edgetune.quiet import quiet
    from edgetune.recipe import parse_settings, recipe_values
    from edgetune.work import LOG_NAME

    overrides = parse_settings(settings)
    out = recipe_values(recipe, overrides).get("out", "bundles/model")
    with quiet(Place(Path(str(out))).folder / LOG_NAME, to_stderr=as_json, verbose=verbose) as stream:
        lines = StageLines(Console(file=stream, soft_wrap=True))
        report = take_turn(recipe, overrides, feedback, lines, accept, command_line())
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(report))
    else:
        _show(report)
    if report.outcome not in (REPLACED, NOTHING):
        click.get_current_context().exit(NOT_REPLACED)


def _show(report: TurnReport) -> None:
    click.echo(
        f"Turn {report.turn}: {report.corrections:,} corrections, {report.new:,} of them new; {report.relabelled:,} "
        f"rows relabelled, {report.added:,} added, {report.disputed:,} disputed and left out."
    )
    found = report.judgement
    if found is not None:
        low, high = found.ci95
        click.echo(
            f"On {found.rows:,} held-out rows: {100 * found.old:.1f}% before, {100 * found.new:.1f}% now, a gain of "
            f"{100 * found.gain:+.1f} points (95%: {100 * low:+.1f} to {100 * high:+.1f}); {found.only_new:,} rows "
            f"only the new one has right, {found.only_old:,} only the old one."
        )
    click.echo(message(report.reason))
    if report.previous:
        click.echo(f"Replaced {escaped(report.bundle)}; the old one is {escaped(report.previous)}.")
    else:
        click.echo(f"{escaped(report.bundle)} stays as it is.")
