"""The report of several tasks on one encoder: one build, one bundle, and what each task loses and reaches by itself."""

from __future__ import annotations

import msgspec

from edgetune.serve.report import Report

# What the figures for all tasks together are of: the mean over tasks of the tuned model's quality that is kept.
QUALITY_KEPT = "quality_kept"
# The task of a recipe that has `tasks` in the place of `data`.
SEVERAL_TASKS = "multi-task"


class TasksReport(Report, frozen=True, kw_only=True):
    """A report whose `quality` and `candidates` are of all tasks together, by `QUALITY_KEPT`: 1 is the tuned model.

    `tasks` has the report of each task by its name, in its own metric; speed, memory and size there are those of the
    one bundle that answers all.
    """

    tasks: dict[str, Report] = msgspec.field(default_factory=dict)
