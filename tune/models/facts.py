"""The facts that a stage writes beside its files for whoever looks there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def write_facts(path: Path, facts: Mapping[str, object]) -> None:
    """Write facts made of JSON types."""
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")
