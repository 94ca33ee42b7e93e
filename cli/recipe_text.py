"""How values and findings are written into the commented recipe of `edgetune init`. Must not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml


def scalar(value: object) -> str:
    """`value` as YAML writes it on one line, in quotes where it needs them."""
    text: str = yaml.safe_dump(value, allow_unicode=True, width=float("inf"), default_flow_style=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def comment(text: str) -> str:
    """`text` without what would end a comment early: no line breaks and no control characters."""
    return "".join(character if character.isprintable() else " " for character in " ".join(text.split()))


def comments(findings: Iterable[str]) -> str:
    """Each finding as a line of comment."""
    return "\n".join(f"#   {comment(finding)}" for finding in findings)


def lines_of(values: Mapping[str, object], remarks: Mapping[str, str]) -> str:
    """A section's keys, indented, a line each, with a remark behind those that have one."""
    written = ((key, f"  {key}: {scalar(value)}") for key, value in values.items())
    return "".join(f"{line}  # {remarks[key]}\n" if key in remarks else f"{line}\n" for key, line in written)


def stem(source: str) -> str:
    """What a bundle of this data may be called."""
    path = Path(source).expanduser().resolve()
    return path.name if path.is_dir() else path.stem
