"""No rows speak for several tasks: a recipe says so, by `tasks` in the place of `data`."""

from __future__ import annotations

from edgetune.evidence import Evidence
from edgetune.tune.tasks.task import Guess


def recognise(task: str, evidence: Evidence) -> Guess:
    """Nothing."""
    return Guess()
