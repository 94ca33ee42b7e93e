"""Several bundles of the same data in one table: `edgetune.compare`, from the reports that they carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetune.api.result import BuildResult, html_table, report_rows
from edgetune.serve.bundle import REPORT_NAME, Bundle
from edgetune.serve.dependencies import require
from edgetune.serve.errors import InputError
from edgetune.serve.report import BuildReport, Report
from edgetune.serve.stepwise.report import LanguageReport, report_of

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


def compare(bundles: Sequence[str | Path | BuildResult]) -> Comparison:
    """Put bundles of the same data side by side, by the reports of their builds.

    Raises:
        BundleError: a folder is no bundle.
        InputError: there are fewer than two bundles, one has no report, or they were measured on different test rows.
        MissingDependency: the extra `build` is not installed.
    """
    require("build", "rich")
    if isinstance(bundles, (str, Path)) or len(bundles) < 2:
        raise InputError("There are no two bundles to compare.", expected="a list of two folders or more")
    folders = [bundle.folder if isinstance(bundle, BuildResult) else Path(bundle) for bundle in bundles]
    reports = [_report(folder) for folder in folders]
    _check_same_rows(folders, reports)
    first = reports[0]
    lines = tuple(map(_line, folders, reports))
    return Comparison(first.quality.metric, first.quality.n, lines, _remark(reports))


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
