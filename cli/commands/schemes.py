"""`edgetune compress --list` and `--plan`: what every scheme is, and which would be tried on this model and data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from edgetune.commands.options import print_json, without_chatter
from edgetune.commands.recipe_options import load_recipe
from edgetune.compress.schemes import SCHEMES
from edgetune.serve.errors import RecipeError
from edgetune.tasks import TASKS


def print_schemes(*, as_json: bool) -> None:
    """Every scheme with what it does, when it helps and what it costs."""
    if as_json:
        print_json({"schemes": [asdict(scheme) for scheme in SCHEMES.values()]})
        return
    for scheme in SCHEMES.values():
        kind = "takes parts of the model away" if scheme.structural else "keeps every part"
        click.echo(f"{scheme.name}  ({scheme.level} level, {kind})")
        for word, text in (("does", scheme.summary), ("helps", scheme.when), ("costs", scheme.cost)):
            click.echo(f"  {word:<6} {text}")
        click.echo()


def print_scheme_plan(options: dict[str, Any]) -> None:
    """Which schemes the recipe's search would try, and why not the others; nothing is written."""
    as_json, _, verbose = options.pop("as_json"), options.pop("fresh"), options.pop("verbose")
    recipe = load_recipe(options.pop("recipe"), options.pop("settings"), options)
    from edgetune.once.recipe import OnceRecipe

    if not isinstance(recipe, OnceRecipe):
        raise RecipeError(
            f"The task {recipe.task!r} has no search to plan: its schemes are tried in turn.",
            expected=" or ".join(name for name, task in TASKS.items() if task.family == OnceRecipe.family),
            action="`edgetune build --plan` names the schemes and their sizes",
        )
    from edgetune.once.plan import planned_schemes

    with without_chatter(verbose=verbose):
        plan = planned_schemes(recipe)
    if as_json:
        print_json({"tried": [scheme.name for scheme in plan.tried], "skipped": plan.skipped})
        return
    width = max(len(name) for name in SCHEMES) + 2
    for scheme in plan.tried:
        click.echo(f"{scheme.name:<{width}}would be tried: {scheme.when}")
    for name, reason in plan.skipped.items():
        click.echo(f"{name:<{width}}left out: {reason}")
    click.echo("Nothing was done.")
