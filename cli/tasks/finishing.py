"""How the builds of all tasks end: the report in the work folder, the bundle in its place, and what a person is told.

Apart from the stages, which differ from task to task; only the report's type and how it is rendered do here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import click
import msgspec

from edgetune.export.once.pack import finish_bundle
from edgetune.progress import StageLines
from edgetune.recipe import CommonRecipe
from edgetune.serve.bundle import REPORT_NAME, Bundle
from edgetune.serve.errors import GateError
from edgetune.work import Work

if TYPE_CHECKING:
    from rich.console import Console

PAGE_NAME = "report.html"
T = TypeVar("T")


class WrittenReport(Protocol):
    """What the report of every task can do."""

    def to_json(self) -> bytes:
        """The file's bytes."""


R = TypeVar("R", bound=WrittenReport)


@dataclass(frozen=True)
class Finishing(Generic[R]):
    """The last steps of one build: where they work, how its reports are read back and rendered as a page."""

    recipe: CommonRecipe
    work: Work
    lines: StageLines
    load: Callable[[Path], R]
    render: Callable[[R], str]

    def bench(
        self,
        inputs: list[Any],
        make: Callable[[Path, Path], object],
        reopen: Callable[[Path], T],
        found: Callable[[T], str],
    ) -> T:
        """Run or open the bench stage; `make` writes into a folder, and its report to the second path as well.

        Raises:
            GateError: nothing may be packed; the report's page is kept beside it.
        """
        kept = self.work.folder / REPORT_NAME
        try:
            return self.work.stage(
                "bench", [*inputs, Path(self.recipe.out).name], lambda folder: make(folder, kept), reopen, found
            )
        except GateError:  # the page of an earlier build must not stand beside the report of this one
            self.work.write(PAGE_NAME, self.render(self.load(kept)).encode())
            raise

    def report(self, benched: R) -> R:
        """The bench stage's report with the seconds and peaks of all stages, kept in the work folder too."""
        told = {"build_seconds": self.work.seconds, "build_peak_bytes": self.work.peak_bytes}
        report = cast(R, msgspec.structs.replace(cast(Any, benched), **told))
        self.work.write(REPORT_NAME, report.to_json())
        self.work.write(PAGE_NAME, self.render(report).encode())
        return report

    def pack(self, draft: Bundle, report: R) -> Bundle:
        """Put the draft in its place with report and recipe, whole or not at all."""
        extra = {
            REPORT_NAME: report.to_json(),
            PAGE_NAME: self.render(report).encode(),
            "recipe.yaml": self.recipe.to_yaml().encode(),
        }
        with self.lines.running("pack") as line:
            bundle = finish_bundle(draft, Path(self.recipe.out), extra)
            line.found(f"{bundle.size_bytes / 1e6:.1f} MB in {self.recipe.out}")
        return bundle


def show_outcome(
    report: R | None,
    where: Path,
    last: str,
    work: Path,
    show: Callable[[R, str, str, Console], None],
    console: Console,
) -> None:
    """Print the table of figures of a benched build, the paths otherwise."""
    if report is None:
        click.echo(f"Done up to {last}. The work folder is {work}.")
    else:
        show(report, str(where), str(where / PAGE_NAME), console)
