"""Running a build up to a stage and telling what came out: shared by `build`, `tune`, `export`, `compress`, `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetune.commands.options import print_json
from edgetune.commands.recipe_options import load_recipe
from edgetune.quiet import quiet


def run_until(stage: str, options: dict[str, Any]) -> None:
    """Run the build that `options` describe up to `stage`; print its table, or one JSON document with `--json`."""
    as_json, fresh, verbose = options.pop("as_json"), options.pop("fresh"), options.pop("verbose")
    recipe = load_recipe(options.pop("recipe"), options.pop("settings"), options)
    from rich.console import Console

    from edgetune.export.once.pack import check_place
    from edgetune.inputs import command_line
    from edgetune.pipeline import build
    from edgetune.progress import StageLines
    from edgetune.tune.training.processes import is_main
    from edgetune.work import LOG_NAME

    check_place(Path(recipe.out))
    log = Path(f"{recipe.out}.work") / LOG_NAME
    with quiet(log, to_stderr=as_json, verbose=verbose) as stream:
        lines = StageLines(Console(file=stream, soft_wrap=True, quiet=not is_main()))
        built = build(recipe, lines, until=stage, fresh=fresh, command=command_line())
    if not is_main():  # under `accelerate launch` the main process tells for all
        return
    if as_json:
        print_json(built.summary())
    else:
        built.show(Console(soft_wrap=True))
