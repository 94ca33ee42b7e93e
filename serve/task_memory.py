"""What became of an earlier task when another was learnt after it, as a report tells it."""

from __future__ import annotations

import msgspec


class TaskMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy on the test rows of one task, `earlier` or `new`, before and after the new one was learnt."""

    task: str
    rows: int
    before: float
    after: float
