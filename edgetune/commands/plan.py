"""`edgetune build --plan`: prints what would be done, and does nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import warnings
from typing import TYPE_CHECKING, Any

import click

from edgetune.commands.options import print_json
from edgetune.commands.recipe_options import load_classifier_recipe

if TYPE_CHECKING:
    from edgetune.plan import Plan


def print_plan(options: dict[str, Any]) -> None:
    """Make the plan of the recipe that the options describe and print it, or one JSON document with `--json`."""
    as_json, _, verbose = options.pop("as_json"), options.pop("fresh"), options.pop("verbose")
    recipe = load_classifier_recipe(options.pop("recipe"), options.pop("settings"), options)
    # No log file here: a plan writes nothing.
    chatter = contextlib.nullcontext() if verbose else contextlib.redirect_stderr(io.StringIO())
    with chatter, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from edgetune.plan import make_plan

        plan = make_plan(recipe)
    if as_json:
        print_json(dataclasses.asdict(plan))
    else:
        for name, value in _lines(plan):
            click.echo(f"{name:<10}{value}")


def _lines(plan: Plan) -> list[tuple[str, str]]:
    rows = ", ".join(f"{count:,} {name}" for name, count in plan.rows.items())
    sizes = ", ".join(f"{name} about {size / 1e6:.0f} MB" for name, size in plan.size_bytes.items())
    training = f"{plan.epochs:g} epochs in {plan.precision} on {plan.device}" if plan.epochs else f"on {plan.device}"
    seconds = ", ".join(f"{stage} {value:.0f}" for stage, value in plan.seconds.items())
    return [
        ("data", f"{plan.data}: {rows}; {plan.labels} labels"),
        *(("", finding) for finding in plan.findings),
        (
            "base",
            f"{plan.base}: {plan.parameters / 1e6:.1f} million parameters, {plan.base_bytes / 1e6:.1f} MB",
        ),
        ("tune", f"{plan.method}, pooling {plan.pooling}, at most {plan.max_tokens} tokens, {training}"),
        ("compress", f"searches {', '.join(plan.schemes)}, as far as they suit ({sizes})"),
        ("bench", f"base in PyTorch beside the bundle, {plan.threads} threads each"),
        ("out", f"{plan.out}" + (" (replaces the bundle there)" if plan.replaces else "")),
        ("disk", f"about {plan.work_bytes / 1e6:.0f} MB in the work folder {plan.out}.work"),
        (
            "time",
            f"about {sum(plan.seconds.values()) / 60:.1f} minutes ({seconds} s); estimated from one timed pass",
        ),
        ("", "Nothing was done."),
    ]
