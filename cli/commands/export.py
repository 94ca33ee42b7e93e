"""`edgetune export`: the build up to this stage, in the same work folder; finished stages are opened, not run again."""

from __future__ import annotations

from typing import Any

import click

from edgetune.commands.options import json_option
from edgetune.commands.recipe_options import recipe_options
from edgetune.commands.staged import run_until


@click.command(name="export")
@recipe_options
@json_option
def command(**options: Any) -> None:
    """Make and prove the graph: run the build up to the export.

    Takes what `edgetune build` takes, and works in the same folder: a later `edgetune build` goes on from here.

    \b
    Example:
      edgetune export --base all-MiniLM-L6-v2 --data train.csv --out bundles/x
    """
    run_until("export", options)
