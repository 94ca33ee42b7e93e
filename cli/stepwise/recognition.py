"""How well the tasks of language models fit a base and rows."""

from __future__ import annotations

from edgetune.evidence import Evidence
from edgetune.tune.tasks.task import Guess


def recognise(task: str, evidence: Evidence) -> Guess:
    """A decoder, and texts alone or chats, speak for text generation."""
    return evidence.speaks_for("decoder", "texts", "chats")
