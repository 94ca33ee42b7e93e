"""Several bundles of the same data in one table: `edgetune.compare`, from the reports that they carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from edgetune.api.result import BuildResult, html_table, report_rows
from edgetune.serve.bundle import REPORT_NAME, Bundle
from edgetune.serve.dependencies import require
from edgetune.serve.errors import InputError, RecipeError
from edgetune.serve.report import BuildReport, Report
from edgetune.serve.stepwise.report import LanguageReport, report_of

if TYPE_CHECKING:
    from edgetune.benchmarks.compare.comparison import Compared, ComparisonRequest
    from edgetune.benchmarks.compare.generation import Judging
    from edgetune.serve.json_types import JsonObject
    from edgetune.tune.training.progress import Progress

_COLUMNS = 2  # of a report's row: its name and the base come first


@dataclass(frozen=True)
class ComparedBundle:
    """One bundle's line of a comparison.

    Attributes:
        folder: of the bundle.
        base: the model that it was tuned from.
        scheme: how it was compressed.
        value: the metric on the test rows; None where it was not measured.
        size_bytes: of the bundle; None where it was not measured.
        figures: all that its report's table shows of the bundle, as it is shown, by name.
    """

    folder: Path
    base: str
    scheme: str
    value: float | None
    size_bytes: float | None
    figures: dict[str, str]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Bundles that were measured on the same test rows; a notebook shows it as a table.

    Attributes:
        metric: what `value` is.
        test_rows: how many there were.
        bundles: in the order in which they were given.
        remark: why times of different bundles cannot be held against each other; empty where they can.
    """

    metric: str
    test_rows: int
    bundles: tuple[ComparedBundle, ...]
    remark: str

    def __repr__(self) -> str:
        scores = ", ".join(
            f"{bundle.folder} {'not measured' if bundle.value is None else format(bundle.value, '.4g')}"
            for bundle in self.bundles
        )
        return f"{self.metric} on the same {self.test_rows:,} test rows: {scores}."

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for bundle in self.bundles for name in bundle.figures))
        rows = [
            (str(bundle.folder), bundle.base, bundle.scheme, *(bundle.figures.get(name, "") for name in names))
            for bundle in self.bundles
        ]
        sentence = f"Measured on the same {self.test_rows:,} test rows."
        return html_table(("bundle", "base", "scheme", *names), rows, (sentence, self.remark))


@overload
def compare(bundles: Sequence[str | Path | BuildResult]) -> Comparison: ...
@overload
def compare(
    bundles: Sequence[str | Path | BuildResult], data: str | Path, *, metric: str = ..., judge: str = ...
) -> Compared: ...
def compare(
    bundles: Sequence[str | Path | BuildResult], data: str | Path | None = None, *, metric: str = "", judge: str = ""
) -> Comparison | Compared:
    """Put bundles side by side: by the reports of their builds, or two of them on rows that both answer.

    Args:
        bundles: two or more; with `data` two, one of which may be an address, as `edgetune compare` takes it.
        data: labelled rows, or conversations for language models; None compares reports.
        metric: that gives the verdict on rows; "" for the task's own.
        judge: of generated answers, a reward bundle or the address of a judge model; "" for none.

    Raises:
        BundleError: a folder is no bundle.
        InputError: there are fewer than two bundles, one has no report, or they were measured on different test rows;
            or, with `data`, they cannot be compared on it.
        MissingDependency: the extra `build` is not installed.
    """
    if data is not None:
        return _on_rows(bundles, data, metric, judge)
    require("build", "rich")
    if isinstance(bundles, (str, Path)) or len(bundles) < 2:
        raise InputError("There are no two bundles to compare.", expected="a list of two folders or more")
    folders = [bundle.folder if isinstance(bundle, BuildResult) else Path(bundle) for bundle in bundles]
    reports = [_report(folder) for folder in folders]
    _check_same_rows(folders, reports)
    first = reports[0]
    lines = tuple(map(_line, folders, reports))
    return Comparison(first.quality.metric, first.quality.n, lines, _remark(reports))


def _on_rows(bundles: Sequence[str | Path | BuildResult], data: str | Path, metric: str, judge: str) -> Compared:
    from edgetune.benchmarks.compare.comparison import ComparisonRequest
    from edgetune.benchmarks.compare.generation import Judging
    from edgetune.tune.training.progress import Silent

    if isinstance(bundles, (str, Path)) or len(bundles) != 2:
        raise InputError(f"Rows judge two models, and {len(bundles)} are given.", expected="a list of two")
    first, second = (str(bundle.folder if isinstance(bundle, BuildResult) else bundle) for bundle in bundles)
    request = ComparisonRequest(metric=metric)
    return judge_on_rows((first, second), {"path": str(data)}, request, Judging(judge), Silent())


def judge_on_rows(
    names: tuple[str, str], section: JsonObject, request: ComparisonRequest, judging: Judging, progress: Progress
) -> Compared:
    """Judge two models on the same rows, by the task of the first that is a bundle.

    Args:
        names: folders of bundles, or one and an address.
        section: of a recipe's data: `path` and how it is read.
        request: by what they are judged.
        judging: of generated answers.
        progress: told how far it is.

    Raises:
        RecipeError: the section has other keys than the task's.
        EdgetuneError: as `compare_answers` and `compare_writers`.
    """
    from pydantic import ValidationError

    from edgetune.benchmarks.compare.address import is_address
    from edgetune.benchmarks.compare.comparison import compare_answers
    from edgetune.benchmarks.compare.generation import compare_writers
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe

    folder = next((name for name in names if not is_address(name)), None)
    writes = folder is None or Bundle.open(folder, verify=False).manifest.generation is not None
    try:
        if writes:
            conversations = ConversationRecipe.model_validate(section)
        else:
            recipe = DataRecipe.model_validate(section)
    except ValidationError as error:
        faults = "; ".join(f"data.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise RecipeError(f"The rows cannot be read so: {faults}.", expected="keys of the data section") from error
    if writes:
        return compare_writers(names, conversations, request, judging, progress)
    if judging.judge:
        raise InputError("A judge is given, and the models generate nothing.", action="leave --judge away")
    return compare_answers(names, recipe, request, progress)


def _report(folder: Path) -> Report | LanguageReport:
    bundle = Bundle.open(folder, verify=False)
    report = report_of(bundle) if (bundle.folder / REPORT_NAME).is_file() else None
    if report is None:
        raise InputError(
            f"The bundle {folder} has no {REPORT_NAME}.", expected="bundles as they were built", action="build it again"
        )
    return report


def _check_same_rows(folders: Sequence[Path], reports: Sequence[BuildReport]) -> None:
    """Refuse figures of different tasks, data, metrics or slices of the test part.

    Raises:
        InputError: naming two bundles and what differs.
    """
    sides: dict[str, Callable[[BuildReport], str]] = {
        "tasks": lambda report: report.task,
        "data (with its split)": lambda report: report.data.digest,
        "metrics": lambda report: report.quality.metric,
        "numbers of test rows": lambda report: str(report.quality.n),
    }
    for folder, report in zip(folders[1:], reports[1:], strict=True):
        for name, of in sides.items():
            if of(report) != of(reports[0]):
                raise InputError(
                    f"{folders[0]} and {folder} were measured on different {name}: {of(reports[0])} and {of(report)}.",
                    expected="bundles of the same task, data, split, seed and metric",
                    action="build them with the same data, test part and seed",
                )


def _line(folder: Path, report: Report | LanguageReport) -> ComparedBundle:
    packed = report.packed
    figures = {row[0]: row[_COLUMNS] for row in report_rows(report)}
    value = packed.value if packed else None
    return ComparedBundle(folder, report.base, report.chosen, value, report.size_bytes.bundle, figures)


def _remark(reports: Sequence[BuildReport]) -> str:
    """Why times cannot be held against each other; they were taken in builds of their own."""
    busy = list(dict.fromkeys(report.name for report in reports if not report.timing_valid))
    machines = list(dict.fromkeys(f"{report.machine.cpu} with {report.machine.threads} threads" for report in reports))
    if busy:
        return f"Times cannot be compared: the machine was too busy when {', '.join(busy)} was measured."
    if len(machines) > 1:
        return f"Times cannot be compared: they were measured on {' and on '.join(machines)}."
    return ""
