"""How well the tasks of the family `once` fit a base and rows."""

from __future__ import annotations

from edgetune.evidence import Evidence, Guess


def recognise(task: str, evidence: Evidence) -> Guess:
    """An encoder and labelled rows speak for every task of the family."""
    return evidence.speaks_for("encoder", "labelled")
