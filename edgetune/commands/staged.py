"""Running a build up to a stage and telling what came out: shared by `build`, `tune`, `export`, `compress`, `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.commands.options import print_json
from edgetune.commands.recipe_options import load_recipe
from edgetune.quiet import quiet

if TYPE_CHECKING:
    from rich.console import Console

    from edgetune.build import Built


def run_until(stage: str, options: dict[str, Any]) -> None:
    """Run the build that `options` describe up to `stage`; print its table, or one JSON document with `--json`."""
    as_json, fresh, verbose = options.pop("as_json"), options.pop("fresh"), options.pop("verbose")
    recipe = load_recipe(options.pop("recipe"), options.pop("settings"), options)
    from rich.console import Console

    from edgetune.build import build
    from edgetune.export.pack import check_place
    from edgetune.progress import StageLines
    from edgetune.tune.processes import is_main
    from edgetune.work import LOG_NAME

    check_place(Path(recipe.out))
    log = Path(f"{recipe.out}.work") / LOG_NAME
    with quiet(log, to_stderr=as_json, verbose=verbose) as stream:
        lines = StageLines(Console(file=stream, soft_wrap=True, quiet=not is_main()))
        built = build(recipe, lines, until=stage, fresh=fresh)
    if not is_main():  # under `accelerate launch` the main process tells for all
        return
    if as_json:
        print_json(summary(built))
    else:
        show(built, Console(soft_wrap=True))


def summary(built: Built) -> dict[str, Any]:
    """What a script wants to know of a build, as JSON types."""
    import msgspec

    found: dict[str, Any] = {"stage": built.last, "work": str(built.work)}
    if built.tuned:
        found["tuned"] = {
            "folder": str(built.tuned.model_folder),
            "method": built.tuned.training.handed_on,
            "validation": built.tuned.training.best_value,
        }
    if built.graph:
        found["graph"] = {"path": str(built.graph.path), "max_abs_diff": built.graph.max_abs_diff}
    if built.searched:
        found["candidates"] = [msgspec.to_builtins(one) for one in built.searched.candidates]
        found["order"], found["skipped"] = built.searched.order, built.searched.skipped
    if built.report:
        found["report"] = msgspec.to_builtins(built.report)
    if built.bundle:
        found["bundle"] = str(built.bundle.folder)
    return found


def show(built: Built, console: Console) -> None:
    """The table of figures for a benched build, the paths otherwise."""
    if built.report:
        from edgetune.terminal import print_report

        where = built.bundle.folder if built.bundle else built.work
        print_report(built.report, str(where), str(where / "report.html"), console)
        return
    click.echo(f"Done up to {built.last}. The work folder is {built.work}.")
