"""The gate's metric of what a build packed, for pages, cards and budgets alike. Needs the floor only."""

from __future__ import annotations

from typing import cast

from edgetune.serve.report import BuildReport


def metric_of(report: BuildReport) -> tuple[str, float, float | None, bool]:
    """The gate's metric of what was packed: its name, value and loss against the tuned model, and whether more is
    better. The loss is a drop of a score, the relative rise of an error; None where nothing was judged."""
    judged = report.proof or next((one for one in report.candidates if one.chosen), None)
    name = report.quality.metric
    if judged is None:
        return name, float("nan"), None, True
    rise = getattr(judged, "rise", None)
    if rise is not None:
        return name, judged.value, cast(float, rise), False
    return name, judged.value, cast("float | None", getattr(judged, "drop", None)), not _is_error(report)


def _is_error(report: BuildReport) -> bool:
    """Whether the gate limited a rise: only errors have one."""
    return "max_rise" in report.gate
