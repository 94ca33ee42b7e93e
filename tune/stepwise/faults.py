"""Faults of rows, told together: a user who mends a file wants to open it once. Must not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted

MOST_LISTED = 20
MOST_NAMED = 3


@dataclass(frozen=True)
class Fault:
    """What is wrong with one row, and where it stands."""

    place: str
    reason: str


def faults_error(faults: Sequence[Fault], found: str, *, expected: str, action: str = "mend these rows.") -> DataError:
    """An error of all faults: `found` with their count, the first of them a line each, and how many more there are."""
    lines = [f"  {fault.place}: {fault.reason}" for fault in faults[:MOST_LISTED]]
    if len(faults) > MOST_LISTED:
        lines.append(f"  and {counted(len(faults) - MOST_LISTED, 'row')} more.")
    return DataError("\n".join([found, *lines]), expected=expected, action=action)


def places_of(places: Sequence[str]) -> str:
    """The first places in words, for a finding."""
    more = f" and {len(places) - MOST_NAMED:,} more" if len(places) > MOST_NAMED else ""
    return "; ".join(places[:MOST_NAMED]) + more


def kind_of(value: object) -> str:
    """What a cell of a file is, in words: "a text", "an object"."""
    name = type(value).__name__
    usual = {
        "NoneType": "a missing value",
        "str": "a text",
        "dict": "an object",
        **dict.fromkeys(("int", "float"), "a number"),
        "bool": "a truth value",
    }
    return usual.get(name, f"a {name}")
