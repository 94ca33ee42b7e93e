"""`edgetune build --plan`: prints what would be done, and does nothing."""

from __future__ import annotations

from typing import Any

import click

from edgetune.commands.options import print_json, without_chatter
from edgetune.commands.recipe_options import load_recipe


def print_plan(options: dict[str, Any]) -> None:
    """Make the plan of the recipe that the options describe and print it, or one JSON document with `--json`."""
    as_json, _, verbose = options.pop("as_json"), options.pop("fresh"), options.pop("verbose")
    recipe = load_recipe(options.pop("recipe"), options.pop("settings"), options)
    with without_chatter(verbose=verbose):
        from edgetune.plan import make_plan

        plan = make_plan(recipe)
    if as_json:
        print_json({"task": recipe.task, **plan.summary()})
    else:
        for name, value in plan.lines():
            click.echo(f"{name:<10}{value}")
