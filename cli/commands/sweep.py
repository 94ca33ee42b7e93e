"""`edgetune sweep`: better hyper-parameters for a recipe, judged on the validation part."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.commands.options import json_option, print_json
from edgetune.commands.recipe_options import load_recipe, recipe_options
from edgetune.serve.dependencies import require
from edgetune.serve.errors import RecipeError
from edgetune.writing import write_text

if TYPE_CHECKING:
    from rich.console import Console

    from edgetune.sweep.sweep import Swept

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Seconds of 90s, 30m or 2h."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", value.strip())
    if not match or not float(match[1]):
        raise click.BadParameter(f"{value!r} is no time; expected 90s, 30m or 2h.", ctx, param)
    return float(match[1]) * _SECONDS[match[2]]


@click.command(name="sweep")
@recipe_options
@click.option("--trials", type=click.IntRange(min=1), default=20, help="Trials in all, those of a stopped sweep too.")
@click.option(
    "--time",
    "seconds",
    callback=_duration,
    metavar="TIME",
    help="Time after which no further trial begins: 90s, 30m, 2h.",
)
@click.option("--space", multiple=True, metavar="KEY=RANGE", help="Key and what is tried of it; may be repeated.")
@click.option(
    "--pareto",
    "objectives",
    multiple=True,
    type=click.Choice(["metric", "size", "latency"]),
    help="Figure that judges trials beside the metric; the front of both is reported. May be repeated.",
)
@json_option
def command(
    trials: int, seconds: float | None, space: tuple[str, ...], objectives: tuple[str, ...], **options: Any
) -> None:
    """Search hyper-parameters of a recipe: trial after trial on the validation part, the recipe's own values first.

    RANGE is LOW..HIGH, LOW..HIGH:log or values with commas between them; without any the recipe's sweep section, or
    what is usual for the method. The best recipe is written to <out>.sweep/best.yaml, for edgetune build. The test part
    is opened once, for the winner. A sweep that was stopped continues with the same command.

    \b
    Example:
      edgetune sweep recipe.yaml --trials 20 --time 30m
      edgetune sweep recipe.yaml --space tune.learning_rate=1e-5..1e-3:log --space tune.batch_size=8,16,32
      edgetune build bundles/x.sweep/best.yaml
    """
    as_json, fresh, verbose = options.pop("as_json"), options.pop("fresh"), options.pop("verbose")
    recipe = load_recipe(options.pop("recipe"), options.pop("settings"), options)
    from edgetune.once.recipe import OnceRecipe

    if not isinstance(recipe, OnceRecipe):
        raise RecipeError(
            f"The task is {recipe.task}.",
            expected="a task that one run of the graph answers: trials of others have no common validation metric yet",
            action="compare a few recipes with edgetune tune instead",
        )
    require("sweep", "optuna")
    from rich.console import Console

    from edgetune.export.once.pack import check_place
    from edgetune.inputs import command_line
    from edgetune.quiet import quiet
    from edgetune.sweep.page import sweep_page
    from edgetune.sweep.recipe import OBJECTIVES
    from edgetune.sweep.space import parse_space
    from edgetune.sweep.sweep import BEST_NAME, PAGE_NAME, Sweep, searched_space
    from edgetune.work import LOG_NAME

    check_place(Path(recipe.out))
    dimensions = searched_space(recipe, parse_space(space))
    wanted = {"metric", *(objectives or recipe.sweep.objectives)}
    sweep = Sweep(recipe, dimensions, tuple(name for name in OBJECTIVES if name in wanted), trials, seconds, fresh)
    with quiet(sweep.folder / LOG_NAME, to_stderr=as_json, verbose=verbose) as stream:
        console = Console(file=stream, soft_wrap=True)

        def say(text: str) -> None:
            console.print(text, highlight=False, markup=False)

        swept = sweep.run(console, say, command_line())
    write_text(sweep.folder / BEST_NAME, swept.best_recipe.to_yaml(), option="--out")
    write_text(sweep.folder / PAGE_NAME, sweep_page(swept), option="--out")
    if as_json:
        print_json({**_facts(swept), "recipe": str(sweep.folder / BEST_NAME), "report": str(sweep.folder / PAGE_NAME)})
    else:
        _show(swept, sweep.folder, Console(soft_wrap=True))


def _facts(swept: Swept) -> dict[str, Any]:
    """For scripts."""
    from edgetune.sweep.study import has_result

    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "values": dict(zip(swept.objectives, trial.values, strict=True)) if has_result(trial) else None,
            "settings": trial.user_attrs.get("settings", {}),
            "own": "own" in trial.user_attrs,
            "error": trial.user_attrs.get("error"),
            "seconds": trial.user_attrs.get("seconds"),
        }
        for trial in swept.trials
    ]
    test = swept.test
    return {
        "metric": swept.metric.name,
        "best": swept.winner.number,
        "front": sorted(swept.front),
        "trials": trials,
        "importance": swept.importance,
        "test": test
        and {
            "value": test.value,
            "ci95": list(test.interval),
            "rows": test.rows,
            "own_value": test.own_value,
            "gain": test.gain and {"value": test.gain.value, "error": test.gain.error},
        },
        "caution": swept.caution,
    }


def _show(swept: Swept, folder: Path, console: Console) -> None:
    from rich.table import Table

    from edgetune.sweep.page import summary_lines
    from edgetune.sweep.study import has_result
    from edgetune.sweep.sweep import BEST_NAME, PAGE_NAME, objective_words, setting_words

    table = Table(box=None, pad_edge=False)
    for name in ("trial", *swept.objectives):
        table.add_column(name, justify="right")
    table.add_column("settings")
    for trial in swept.trials:
        absent = ["failed" if "error" in trial.user_attrs else "pruned", *[""] * (len(swept.objectives) - 1)]
        words = objective_words(trial.values, swept.objectives) if has_result(trial) else absent
        style = "bold" if trial.number == swept.winner.number else None
        table.add_row(str(trial.number), *words, setting_words(trial), style=style)
    console.print(table)
    for text in summary_lines(swept):
        console.print(text, highlight=False, markup=False)
    console.print(f"Report: {folder / PAGE_NAME}", highlight=False, markup=False)
    console.print(f"Next: edgetune build {folder / BEST_NAME}", highlight=False, markup=False)
