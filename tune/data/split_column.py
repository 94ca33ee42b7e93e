"""A column that says which part each row is of: obeyed, so that no row is learnt from that was kept to judge by."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.json_documents import PART_NAMES, part_of
from edgetune.tune.data.reading import Table
from edgetune.tune.data.sources import Tables


def part_column(tables: Tables, named: Collection[str | None]) -> str | None:
    """The column that says which part each row is of; None where there is none, or the source has parts already.

    Args:
        named: columns that the user named as texts or labels.
    """
    if tables.validation is not None or tables.test is not None:
        return None
    return next((name for name in tables.train.columns if name not in named and _names_parts(tables.train, name)), None)


def divide(table: Table, column: str) -> Tables:
    """The rows of each part by `column`, without it."""
    rest = {name: cells for name, cells in table.columns.items() if name != column}
    parts: dict[str, Table] = {}
    for part in PART_NAMES:
        rows = [row for row, cell in enumerate(table.columns[column]) if part_of(cell) == part]
        if rows:
            columns = {name: tuple(cells[row] for row in rows) for name, cells in rest.items()}
            parts[part] = replace(table, source=f"{table.source} ({part})", columns=columns, findings=())
    sizes = ", ".join(counted(len(rows), f"{part} row") for part, rows in parts.items())
    finding = f"Column {column!r} of {table.source} divides its rows: {sizes}."
    train = replace(parts["train"], findings=(*table.findings, finding))
    return Tables(train, parts.get("validation"), parts.get("test"))


def _names_parts(table: Table, name: str) -> bool:
    """Whether every cell names a part, two parts at least and training among them."""
    parts = {part_of(cell) for cell in set(table.columns[name])}
    return len(parts) > 1 and "train" in parts and None not in parts
