"""What one JSON document holds: rows, columns by name, rows under a key, or several parts.

Apart from the readers, which all tasks share it with. The shapes are those of pandas' `to_json` (orient: records,
columns, index, split, table, values) and of exports that put their rows under a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


def part_of(name: str) -> str | None:
    """The part that `name` names, if it names one."""
    return next((part for part, names in PART_NAMES.items() if name.strip().casefold() in names), None)


@dataclass(frozen=True)
class Document:
    """The rows of a document by part, "train" where it names none, and how they stood in it; "" for a list of rows."""

    parts: Mapping[str, Sequence[object]]
    layout: str = ""


def read_document(document: object) -> Document | None:
    """The rows that `document` holds; None where it is neither a list nor an object."""
    if isinstance(document, list):
        return _of_list(document)
    if not isinstance(document, dict):
        return None
    if pairs := _annotated(document):
        return Document({"train": pairs}, "texts with their annotations under the key 'annotations'")
    named = {key: part for key in document if (part := part_of(key)) is not None}
    if "train" in named.values() and all(isinstance(value, (list, dict)) for value in document.values()):
        inner = {part: read_document(document[key]) for key, part in named.items()}
        rows = {part: held.parts["train"] for part, held in inner.items() if held and list(held.parts) == ["train"]}
        if len(rows) == len(named):
            others = [key for key in document if key not in named]
            rest = f"; not read: {', '.join(others)}" if others else ""
            return Document(rows, f"the parts {', '.join(named)}{rest}")
    return _of_object(document)


def _annotated(document: Mapping[str, object]) -> list[dict[str, object]]:
    """The rows of {"annotations": [["...", {"entities": ...}], ...]}, as annotators for spaCy write them."""
    pairs = document.get("annotations")
    given = [pair for pair in pairs if pair is not None] if isinstance(pairs, list) else []
    if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict) for pair in given):
        return []
    return [{"text": text, **annotation} for text, annotation in given]


def _of_list(rows: Sequence[object]) -> Document:
    """Rows as they are; of lists of cells alone, the cells by numbered columns."""
    cells = [row for row in rows if isinstance(row, list)]
    if not cells or len(cells) < len(rows) or len({len(row) for row in cells}) > 1 or len(cells[0]) < 2:
        return Document({"train": rows})
    names = [f"column_{number}" for number in range(1, len(cells[0]) + 1)]
    named = [dict(zip(names, row, strict=True)) for row in cells]
    return Document({"train": named}, f"lists of cells: their columns are named {', '.join(names)}")


def _of_object(document: Mapping[str, object]) -> Document:
    names, data = document.get("columns"), document.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(_fits(row, names) for row in data):
        rows = [dict(zip(map(str, names), row, strict=True)) for row in data]
        return Document({"train": rows}, "names of columns beside lists of cells")
    objects = [key for key, value in document.items() if _are_objects(value)]
    if len(objects) == 1 and (len(document) == 1 or not _lists(document, but=objects[0])):
        held = document[objects[0]]
        assert isinstance(held, list)
        return Document({"train": held}, f"rows under the key {objects[0]!r}")
    if columns := _columns(document):
        return Document({"train": columns}, "columns by name")
    if _are_mappings(document):
        return _of_mappings(document)
    return Document({"train": [document]})


def _fits(row: object, names: Sequence[object]) -> bool:
    return isinstance(row, list) and len(row) == len(names)


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _lists(document: Mapping[str, object], but: str) -> list[str]:
    return [key for key, value in document.items() if key != but and isinstance(value, list)]


def _columns(document: Mapping[str, object]) -> list[dict[str, object]]:
    """The rows of {"text": [...], "label": [...]}; none where the values are no lists of the same length."""
    lists = [value for value in document.values() if isinstance(value, list)]
    if len(lists) < 2 or len(lists) < len(document) or len({len(cells) for cells in lists}) > 1:
        return []
    return [dict(zip(document, cells, strict=True)) for cells in zip(*lists, strict=True)]


def _are_mappings(document: Mapping[str, object]) -> bool:
    return bool(document) and all(isinstance(value, dict) and value for value in document.values())


def _of_mappings(document: Mapping[str, object]) -> Document:
    """Columns by name, each with its cells by row, or rows by number, each with its cells by column."""
    inner: dict[str, None] = {}
    for value in document.values():
        assert isinstance(value, dict)
        inner.update(dict.fromkeys(value))
    numbered = all(key.isdigit() for key in document), all(key.isdigit() for key in inner)
    if numbered[0] == numbered[1]:
        numbered = len(document) > len(inner), len(inner) > len(document)
    if numbered[1]:
        rows = [{name: cells.get(row) for name, cells in document.items() if isinstance(cells, dict)} for row in inner]
        return Document({"train": rows}, "columns by name")
    return (
        Document({"train": list(document.values())}, "rows by number")
        if numbered[0]
        else Document({"train": [document]})
    )
