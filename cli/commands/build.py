"""`edgetune build`: labelled data in, a proven bundle out."""

from __future__ import annotations

from typing import Any

import click

from edgetune.commands.options import json_option
from edgetune.commands.recipe_options import recipe_options
from edgetune.commands.staged import run_until


@click.command(name="build")
@recipe_options
@click.option("--plan", is_flag=True, help="Print what a build would do, with sizes and times, and do nothing.")
@json_option
def command(plan: bool, **options: Any) -> None:
    """Fine-tune a pretrained model on labelled data, compress it, prove it, and pack a bundle.

    RECIPE is a YAML file (`edgetune init DATA` writes one); flags lie over it, and suffice without it. A build
    that was stopped continues with the same command. Exit code 3: no candidate passed the gate or the budget;
    nothing was written, the report stays in the work folder.

    \b
    Example:
      edgetune build --base all-MiniLM-L6-v2 --data train.csv --out bundles/x
      edgetune build recipe.yaml --method probe --set gate.max_drop=0.02
    """
    if plan:
        from edgetune.commands.plan import print_plan

        print_plan(options)
        return
    run_until("pack", options)
