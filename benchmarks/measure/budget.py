"""A budget that a bundle is held against: limits by name in a file, each met, not met, or not measured.

What was not measured is not met. The file is read here, since the floor has no YAML: lines of `name: number`, comments,
and `budget:` above them where they are indented; or the same as JSON.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgetune.benchmarks.measure.figures import MachineFigures
from edgetune.benchmarks.report.summary import metric_of
from edgetune.serve.errors import RecipeError
from edgetune.serve.files import read_regular
from edgetune.serve.report import BuildReport

MOST_BYTES = 64 * 1024


@dataclass(frozen=True)
class Limit:
    """What one key of a budget limits: whether it is the least or the most, and whether it is a time or rate."""

    summary: str
    least: bool = False
    is_speed: bool = False


# By the names that recipes have for them too.
LIMITS = {
    "size_mb": Limit("all files of the bundle, 10^6 bytes"),
    "p50_ms": Limit("median of single calls", is_speed=True),
    "p90_ms": Limit("90th percentile of single calls", is_speed=True),
    "first_token_ms": Limit("first token after the shortest prompt", is_speed=True),
    "tokens_per_second": Limit("tokens a second of a single answer", least=True, is_speed=True),
    "cold_start_ms": Limit("process start to first answer", is_speed=True),
    "rss_mb": Limit("peak resident memory of the answering process, 10^6 bytes"),
    "slower": Limit("the last calls of a spell without a pause over the first", is_speed=True),
    "metric": Limit("the gate's metric on the test part: least of a score, most of an error"),
    "drop": Limit("loss of that metric against the tuned model, or against the older bundle where one is named"),
}
_LINE = re.compile(r"(?P<indent>[ \t]*)(?P<name>[\w.-]+)[ \t]*:[ \t]*(?P<value>[^#]*?)[ \t]*(#.*)?")


@dataclass(frozen=True)
class Checked:
    """One limit and the figure it was held against; `figure` is None where nothing was measured.

    `source` says where the figure is from, `remark` what else is known of it.
    """

    name: str
    limit: float
    figure: float | None
    met: bool
    source: str
    remark: str = ""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.figure is None:
            return f"{self.name} was not measured, the budget is {self.limit:g}"
        word = "is" if self.met else "is not within the budget:"
        return f"{self.name} {word} {self.figure:.4g}, the budget is {self.limit:g}"


def read_budget(path: Path) -> dict[str, float]:
    """The limits in a file, by name.

    Raises:
        RecipeError: it cannot be read, asks for nothing, or has faults, all of which are told at once.
    """
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise RecipeError(
            f"The budget {path} cannot be read: {error.strerror or error}.", expected=_expected()
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"The budget {path} is no text in UTF-8.", expected=_expected()) from error
    faults: list[str] = []
    entries = _json_entries(text, faults) if text.lstrip().startswith("{") else _entries(text, faults)
    limits: dict[str, float] = {}
    for place, name, value in entries:
        fault = _fault(name, value, limits)
        if fault:
            faults.append(f"{place}: {fault}")
        else:
            limits[name] = float(value)
    if faults:
        raise RecipeError(
            f"The budget {path} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n  " + "\n  ".join(faults),
            expected=_expected(),
        )
    if not limits:
        raise RecipeError(f"The budget {path} asks for nothing.", expected=_expected(), action="name a limit")
    return limits


def _expected() -> str:
    return f"lines such as `p90_ms: 5`, of {', '.join(LIMITS)}"


def _entries(text: str, faults: list[str]) -> list[tuple[str, str, str]]:
    """Place, name and value of each line."""
    entries = []
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#") or line.strip() == "---":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            faults.append(f"line {number}: {line.strip()[:60]!r} is no `name: number`")
        elif match["name"] == "budget" and not match["indent"] and not match["value"]:
            inside = True
        elif match["indent"] and not inside:
            faults.append(f"line {number}: {match['name']!r} is indented, and no `budget:` stands above it")
        else:
            inside = inside and bool(match["indent"])
            entries.append((f"line {number}", match["name"], match["value"]))
    return entries


def _json_entries(text: str, faults: list[str]) -> list[tuple[str, str, str]]:
    try:
        value = msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError as error:
        faults.append(str(error))
        return []
    inner = value.get("budget", value)
    pairs = inner if isinstance(inner, dict) else value
    return [("JSON", str(name), "true" if item is True else str(item)) for name, item in pairs.items()]


def _fault(name: str, value: str, limits: Mapping[str, float]) -> str:
    if name not in LIMITS:
        near = difflib.get_close_matches(name[:80], LIMITS, n=1)
        return f"there is no limit {name[:80]!r}" + (f"; did you mean {near[0]}?" if near else "")
    if name in limits:
        return f"{name} is there twice"
    try:
        number = float(value)
    except ValueError:
        return f"{name} is {value[:40]!r}, no number"
    if not math.isfinite(number) or (number <= 0 and name not in ("metric", "drop")):
        return f"{name} is {value[:40]}, no limit that anything could meet"
    return ""


@dataclass(frozen=True)
class Evidence:
    """What limits are held against.

    Attributes:
        bundle_bytes: all files of the bundle as it lies here.
        machine: figures of one machine; None where there are none at all.
        source: where these are from, in a few words.
        report: of the bundle's build; None where it has none.
        older: of the bundle that this one is to take the place of; None where none was named.
    """

    bundle_bytes: int
    machine: MachineFigures | None
    source: str
    report: BuildReport | None
    older: BuildReport | None = None


def check(limits: Mapping[str, float], evidence: Evidence) -> list[Checked]:
    """Each limit held against what is known, in the order of the file."""
    return [_checked(name, limit, evidence) for name, limit in limits.items()]


def _checked(name: str, limit: float, evidence: Evidence) -> Checked:
    if name == "size_mb":
        return _compared(name, limit, evidence.bundle_bytes / 1e6, "the bundle's files")
    if name in ("metric", "drop"):
        return _quality(name, limit, evidence)
    figures = evidence.machine
    figure = None if figures is None else _figure(name, figures)
    if figures is not None and LIMITS[name].is_speed and figures.timing_remark:
        return Checked(name, limit, None, False, evidence.source, figures.timing_remark)
    return _compared(name, limit, figure, evidence.source)


def _figure(name: str, figures: MachineFigures) -> float | None:
    values = {
        "p50_ms": figures.p50_ms,
        "p90_ms": figures.p90_ms,
        "first_token_ms": figures.first_token_ms,
        "tokens_per_second": figures.tokens_per_second,
        "cold_start_ms": figures.cold_start_ms,
        "rss_mb": None if figures.rss_peak_bytes is None else figures.rss_peak_bytes / 1e6,
        "slower": figures.slower,
    }
    return values[name]


def _quality(name: str, limit: float, evidence: Evidence) -> Checked:
    """The metric, or its loss; by the report, since only the build has the test part."""
    if evidence.report is None:
        return Checked(name, limit, None, False, "the build's report", "the bundle has no report")
    metric, value, loss, more = metric_of(evidence.report)
    rows = f"{metric} on {evidence.report.quality.n:,} test rows"
    if name == "metric":
        figure = None if math.isnan(value) else value
        return _compared(name, limit, figure, "the build's report", rows, least=more)
    if evidence.older is None:
        return _compared(name, limit, loss, "the build's report", f"{rows}, against the tuned model")
    return _against(limit, evidence.report, evidence.older)


def _against(limit: float, report: BuildReport, older: BuildReport) -> Checked:
    """The loss against an older bundle, where both were judged by the same metric on the same rows."""
    (metric, value, _, more), (other, before, _, _) = metric_of(report), metric_of(older)
    source = "both builds' reports"
    if metric != other or report.data.digest != older.data.digest:
        differs = f"{metric} and {other}" if metric != other else "other data"
        remark = f"the two were judged on {differs}, and cannot be compared: build the older one on this data again"
        return Checked("drop", limit, None, False, source, remark)
    if math.isnan(value) or math.isnan(before) or (not more and before == 0):
        return Checked("drop", limit, None, False, source, "one of them was not judged")
    loss = before - value if more else value / before - 1
    return _compared("drop", limit, loss, source, f"{metric} {before:.4f} before, {value:.4f} now; not a paired test")


def _compared(
    name: str, limit: float, figure: float | None, source: str, remark: str = "", *, least: bool | None = None
) -> Checked:
    is_least = LIMITS[name].least if least is None else least
    met = figure is not None and (figure >= limit if is_least else figure <= limit)
    return Checked(name, limit, figure, met, source, remark)


def as_markdown(name: str, checks: Sequence[Checked]) -> str:
    """A table for a pull request."""
    failed = sum(not one.met for one in checks)
    verdict = "meets its budget" if not failed else f"does not meet {failed} of {len(checks)} limits of its budget"
    lines = [f"### {_cell(name)} {verdict}", "", "| limit | budget | figure | | from |", "|---|---:|---:|---|---|"]
    for one in checks:
        figure = "not measured" if one.figure is None else f"{one.figure:.4g}"
        remark = f"{one.source}; {one.remark}" if one.remark else one.source
        lines.append(
            f"| {one.name} | {one.limit:g} | {figure} | {'met' if one.met else '**not met**'} | {_cell(remark)} |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
