"""The report of several tasks as one HTML page: what holds for all, then the page of each task, folded."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from edgetune.benchmarks.report.html import render_html
from edgetune.serve.tasks_report import TasksReport

_BODY = re.compile(r"(?s)(.*<body[^>]*>)(.*)(</body>.*)")


def render_page(report: TasksReport) -> str:
    """`report` as one HTML page that needs nothing beside itself."""
    before, body, after = _parts(render_html(report))
    pages = (
        Markup("<details><summary>Task {}</summary>{}</details>").format(
            escape(task), Markup(_parts(render_html(one))[1])
        )
        for task, one in report.tasks.items()
    )
    return "".join((before, body, *pages, after))


def _parts(page: str) -> tuple[str, str, str]:
    """What stands before a page's body, in it, and behind it."""
    match = _BODY.fullmatch(page)
    assert match is not None, "every page has a body"
    before, body, after = match.groups()
    return before, body, after
