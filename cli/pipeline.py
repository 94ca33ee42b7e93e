"""How a recipe becomes a bundle: the place, the base and the work folder, then the stages of its task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgetune.export.once.pack import check_place, restore_bundle
from edgetune.progress import StageLines
from edgetune.recipe import CommonRecipe
from edgetune.serve.errors import Interrupted
from edgetune.tasks import TASKS
from edgetune.tasks.sources import command_line
from edgetune.tune.models.base import find_base
from edgetune.tune.training.processes import is_main, main_first
from edgetune.work import Work

if TYPE_CHECKING:
    from rich.console import Console


class Built(Protocol):
    """How far a build went; each task has its own."""

    @property
    def last(self) -> str:
        """The last stage that was run."""

    @property
    def work(self) -> Path:
        """The work folder."""

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""

    def show(self, console: Console) -> None:
        """Print what a person wants to know."""


def build(recipe: CommonRecipe, lines: StageLines, *, until: str = "pack", fresh: bool = False) -> Built:
    """Run the stages of a recipe up to `until`; finished ones are opened, not run again.

    Raises:
        EdgetuneError: any stage's; nothing is written to the output unless the whole build succeeds.
        Interrupted: Ctrl-C, with the command that continues.
    """
    out, stages = Path(recipe.out), TASKS[recipe.task].open_stages()
    with main_first():
        if is_main():
            restore_bundle(out)
        check_place(out)
        base = find_base(recipe.base, allow_pickle=recipe.allows_pickle)
        work = Work(out.with_name(f"{out.name}.work"), lines, fresh=fresh and is_main())
    try:
        built: Built = stages(recipe, base, work, lines).run(until)
        return built
    except (KeyboardInterrupt, Interrupted) as error:
        what = f"{error} " if isinstance(error, Interrupted) else "The build was stopped. "
        raise Interrupted(
            f"{what}What is finished is kept in {work.folder}.", action=f"{command_line()} continues"
        ) from None
