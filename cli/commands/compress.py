"""`edgetune compress`: the build up to this stage, in the same work folder; finished stages are not run again."""

from __future__ import annotations

from typing import Any

import click

from edgetune.commands.options import json_option
from edgetune.commands.recipe_options import recipe_options
from edgetune.commands.staged import run_until


@click.command(name="compress")
@recipe_options
@click.option("--list", "as_list", is_flag=True, help="Print what every scheme does, when it helps and what it costs.")
@click.option("--plan", is_flag=True, help="Print which schemes would be tried here, and why not the others.")
@json_option
def command(as_list: bool, plan: bool, **options: Any) -> None:
    """Search the candidates: run the build up to compression.

    Takes what `edgetune build` takes, and works in the same folder: a later `edgetune build` goes on from here.
    What candidates were made is kept there too: another gate, budget or list of schemes uses it again.

    \b
    Example:
      edgetune compress --list
      edgetune compress --plan --base all-MiniLM-L6-v2 --data train.csv
      edgetune compress --base all-MiniLM-L6-v2 --data train.csv --scheme fused --scheme int8_dynamic --out bundles/x
    """
    if as_list:
        from edgetune.commands.schemes import print_schemes

        print_schemes(as_json=options["as_json"])
    elif plan:
        from edgetune.commands.schemes import print_scheme_plan

        print_scheme_plan(options)
    else:
        run_until("compress", options)
