"""How well the tasks of the family `once` fit a base and rows."""

from __future__ import annotations

from edgetune.evidence import Evidence
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.task import USUAL, Guess


def recognise(task: str, evidence: Evidence) -> Guess:
    """An encoder and labelled rows speak for every task of the family; more or less so by what the task itself sees."""
    family = evidence.speaks_for("encoder", "labelled")
    own = TASKS[task].recognises(evidence.rows.columns, evidence.section)
    if not own.strength:
        return Guess()
    return Guess(max(0.0, family.strength + own.strength - USUAL), own.reason or family.reason)
