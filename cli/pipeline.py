"""How a recipe becomes a bundle: six stages, each opened if it is finished, else run. The same for every task.

What a stage does is its family's affair (cli/once/stages.py, cli/stepwise/stages.py); the order, what is run again,
the report and the packing are the same for all, and stand here.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click
import msgspec

from edgetune.benchmarks.report.card import CARD_NAME, base_licence, model_card
from edgetune.benchmarks.report.sbom import SBOM_NAME, bill_of_materials
from edgetune.export.once.pack import check_place, finish_bundle, restore_bundle
from edgetune.progress import StageLine, StageLines
from edgetune.recipe import Recipe
from edgetune.serve.bundle import REPORT_NAME, Bundle
from edgetune.serve.errors import GateError, Interrupted, OutOfMemory
from edgetune.serve.workload import WORKLOAD_NAME, Workload
from edgetune.tasks import TASKS, pipeline_tag
from edgetune.tune.models.base import Base, find_base
from edgetune.tune.training.processes import is_main, main_first
from edgetune.tune.training.reporters import require_reporters
from edgetune.work import Others, StageRun, Work, locked

if TYPE_CHECKING:
    from rich.console import Console

PAGE_NAME = "report.html"

R = TypeVar("R", bound=Recipe)
F = TypeVar("F")


@dataclass(frozen=True)
class Build(Generic[R]):
    """One build in progress: what goes into its stages, and the results of those that are finished, by stage.

    `command` is the command line that started it, for the report; empty where a program did. `planned` says whether
    what the stages will take is estimated before training.
    """

    recipe: R
    base: Base
    work: Work
    lines: StageLines
    command: str = ""
    planned: bool = True
    results: dict[str, Any] = field(default_factory=dict)

    def result(self, kind: type[F]) -> F:
        """The result of the stage that gives a `kind`, which must be finished."""
        return next(result for result in self.results.values() if isinstance(result, kind))

    @property
    def progress(self) -> StageLine:
        """The line of the stage that runs now."""
        return self.lines.progress


class Stage(ABC, Generic[R, F]):
    """One step of a build, which leaves a folder that can be opened again.

    Attributes:
        name: of the stage and its folder.
        others: what the other processes of `accelerate launch` do; see `StageRun`.
    """

    name: str
    others: Others = "absent"

    @abstractmethod
    def inputs(self, build: Build[R]) -> Any:
        """What shapes the result beside the stages before, as JSON types: where it has not changed, nothing is run."""

    @abstractmethod
    def make(self, build: Build[R], folder: Path) -> None:
        """Write the stage's files into `folder`, from where it was stopped the last time."""

    @abstractmethod
    def open(self, build: Build[R], folder: Path) -> F:
        """The result that lies in `folder`."""

    def outcome(self, build: Build[R], result: F) -> Any:
        """What the stages behind are made from, as JSON types; None for its files and all that went into them."""
        return None

    @abstractmethod
    def line(self, result: F) -> str:
        """A few words on the result, for the terminal."""

    def summary(self, result: F) -> dict[str, Any]:
        """What a script wants to know of the result, as JSON types."""
        return {}


@dataclass(frozen=True)
class Pipeline:
    """The stages of a family up to the benchmark, whose result has a `report` and a `draft` of the bundle.

    Attributes:
        stages: data, tune, export, compress, bench.
        estimate: seconds that each stage will take, of a build whose data is there; takes a second or two.
        load_report: reads a report's file.
        page: a report as an HTML page.
        workload: what the bundle is timed on elsewhere, by its draft; None where the recipe wants none.
        show: prints a report in the terminal, with the paths of bundle and page.
    """

    stages: tuple[Stage[Any, Any], ...]
    estimate: Callable[[Build[Any]], Mapping[str, float]]
    load_report: Callable[[Path], Any]
    page: Callable[[Any], str]
    workload: Callable[[Build[Any], Bundle], Workload | None]
    show: Callable[[Any, str, str, Console], None]


@dataclass(frozen=True)
class Built:
    """How far a build went: the last stage that was run, the work folder, and the results by stage until then."""

    last: str
    work: Path
    pipeline: Pipeline
    results: Mapping[str, Any]
    report: Any = None
    bundle: Bundle | None = None

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""
        values: dict[str, Any] = {"stage": self.last, "work": str(self.work)}
        for stage in self.pipeline.stages:
            if stage.name in self.results:
                values |= stage.summary(self.results[stage.name])
        if self.report:
            if self.report.decision:
                values = {"decision": msgspec.to_builtins(self.report.decision), **values}
            values["report"] = msgspec.to_builtins(self.report)
        if self.bundle:
            values["bundle"] = str(self.bundle.folder)
        return values

    def show(self, console: Console) -> None:
        """Print the table of figures of a build that was measured, the work folder of any other."""
        if self.report is None:
            click.echo(f"Done up to {self.last}. The work folder is {self.work}.")
            return
        folder = self.bundle.folder if self.bundle else self.work
        self.pipeline.show(self.report, str(folder), str(folder / PAGE_NAME), console)


def build(
    recipe: Recipe,
    lines: StageLines,
    *,
    until: str = "pack",
    fresh: bool = False,
    command: str = "",
    planned: bool = True,
) -> Built:
    """Run the stages of a recipe up to `until`; finished ones are opened, not run again.

    `command` is the command line that asks for it, empty where a program does; `planned` as `Build` has it.

    Raises:
        EdgetuneError: any stage's; nothing is written to the output unless the whole build succeeds.
        MissingDependency: a tracker that the recipe names is not installed; nothing has begun.
        WorkError: another build works in the same folder.
        Interrupted: Ctrl-C, with the command that continues.
    """
    out = Path(recipe.out)
    folder = out.with_name(f"{out.name}.work")
    pipeline: Pipeline = TASKS[recipe.task].load("stages")
    require_reporters(recipe.tune.report_to)
    check_place(out)
    with locked(folder):
        with main_first():
            if is_main():
                restore_bundle(out)
            check_place(out)
            base = find_base(recipe.base, allow_pickle=recipe.tune.allow_pickle)
            work = Work(folder, lines, fresh=fresh and is_main())
        try:
            return _run(Build(recipe, base, work, lines, command, planned), pipeline, until)
        except (KeyboardInterrupt, Interrupted) as error:
            reason = f"{error} " if isinstance(error, Interrupted) else "The build was stopped. "
            raise Interrupted(
                f"{reason}What is finished is kept in {work.folder}.", action=f"{command or 'the same call'} continues"
            ) from None


def _run(build: Build[Any], pipeline: Pipeline, until: str) -> Built:
    work, last = build.work, ""
    for stage in pipeline.stages:
        last = stage.name
        build.results[last] = _result(build, stage, pipeline)
        # Beside the main process the others only help to train.
        if last == until or (last == "tune" and not is_main()):
            break
    if last != "bench":
        return Built(last, work.folder, pipeline, build.results)
    report = _report(build, pipeline)
    if until == "bench":
        return Built("bench", work.folder, pipeline, build.results, report)
    return Built("pack", work.folder, pipeline, build.results, report, _pack(build, pipeline, report))


def _result(build: Build[Any], stage: Stage[Any, F], pipeline: Pipeline) -> F:
    """Run or open one stage; before training, say how long the build is expected to take.

    Raises:
        GateError: nothing may be packed; the report's page is written beside the report that says so.
    """
    work, inputs = build.work, stage.inputs(build)
    if stage.name == "tune" and build.planned and is_main() and not work.is_finished(stage.name, inputs):
        work.plan(_estimate(build, pipeline))
    try:
        return work.stage(
            StageRun(
                stage.name,
                inputs,
                make=lambda folder: stage.make(build, folder),
                reopen=lambda folder: stage.open(build, folder),
                line=stage.line,
                others=stage.others,
                outcome=lambda result: stage.outcome(build, result),
            )
        )
    except GateError:  # the page of an earlier build must not stand beside the report of this one
        report = work.folder / REPORT_NAME
        if report.is_file():
            work.write(PAGE_NAME, pipeline.page(pipeline.load_report(report)).encode())
        raise


def _estimate(build: Build[Any], pipeline: Pipeline) -> Mapping[str, float]:
    """Seconds by stage; none where a trial step takes more memory than there is, which training will say better."""
    try:
        return pipeline.estimate(build)
    except OutOfMemory:
        return {}


def _report(build: Build[Any], pipeline: Pipeline) -> Any:
    """The benchmark's report with the seconds and peaks of all stages, written into the work folder too."""
    work = build.work
    report = msgspec.structs.replace(
        build.results["bench"].report,
        build_seconds=work.seconds,
        planned_seconds=work.planned,
        build_peak_bytes=work.peak_bytes,
    )
    work.write(REPORT_NAME, report.to_json())
    work.write(PAGE_NAME, pipeline.page(report).encode())
    return report


def _pack(build: Build[Any], pipeline: Pipeline, report: Any) -> Bundle:
    """Put the draft in its place with report and recipe, whole or not at all."""
    recipe = build.recipe
    files = {
        REPORT_NAME: report.to_json(),
        PAGE_NAME: pipeline.page(report).encode(),
        "recipe.yaml": recipe.to_yaml().encode(),
    }
    with build.lines.running("pack") as line:
        draft = build.results["bench"].draft
        if (workload := pipeline.workload(build, draft)) is not None:
            files[WORKLOAD_NAME] = msgspec.json.encode(workload) + b"\n"
        licence, tag = base_licence(build.base.folder), pipeline_tag(draft.manifest.task)
        files[CARD_NAME] = model_card(draft.manifest, report, licence, tag).encode()
        digests = {name: entry.sha256 for name, entry in draft.manifest.files.items()}
        digests |= {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        files[SBOM_NAME] = bill_of_materials(draft.manifest, report, licence, digests).encode()
        bundle = finish_bundle(draft, Path(recipe.out), files)
        line.finish(f"{bundle.size_bytes / 1e6:.1f} MB in {recipe.out}")
    return bundle
