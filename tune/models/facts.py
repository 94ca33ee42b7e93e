"""The facts that a stage writes beside its files, so that a later command can open them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgetune.serve.errors import WorkError


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Write facts made of JSON types."""
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")


def read_facts(path: Path, *, what: str, command: str) -> dict[str, Any]:
    """Read what `write_facts` wrote.

    Args:
        path: the file of facts.
        what: what they describe, for the error: "graph".
        command: the edgetune command that makes it again.

    Raises:
        WorkError: there are none, or they are no JSON.
    """
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise WorkError(f"{path.parent} holds no {what}: {error}", action=f"run `edgetune {command}` again") from error
    return facts
