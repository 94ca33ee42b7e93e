"""What a person decided of rows that `edgetune review` lists: labels that were corrected, and rows to leave out.

A row is known by its text and its label, so that a list stays true where rows were added or moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted, title
from edgetune.tune.data.columns import require_column
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.rows import Input, Parts, Rows, key, shortened
from edgetune.tune.data.sources import read_source

ACTIONS = ("", "keep", "relabel", "drop")
TEXT_COLUMNS = ("text", "text_pair")  # of the list
_Row = tuple[Input, str]


@dataclass(frozen=True)
class Corrections:
    """Decisions on rows.

    Attributes:
        source: where they were read.
        labels: the right label by text (as `key` gives it) and label; None drops the row.
    """

    source: str
    labels: Mapping[_Row, str | None]


def read_corrections(source: str) -> Corrections:
    """The decisions of a list as `edgetune review` writes it, with its column `action` filled in.

    Raises:
        DataError: the list cannot be read, lacks a column, or has an action that is none or has no label to give.
    """
    table = read_source(source, FileOptions()).train
    for column in ("action", "suggested", "label", TEXT_COLUMNS[0]):
        require_column(table, column, "correction")
    texts = [table.columns[name] for name in TEXT_COLUMNS if name in table.columns]
    columns = (table.columns["action"], table.columns["suggested"], table.columns["label"])
    labels: dict[_Row, str | None] = {}
    for number, (action, suggested, label, *parts) in enumerate(zip(*columns, *texts, strict=True), start=1):
        action, suggested = action.strip().lower(), suggested.strip()
        if action not in ACTIONS:
            raise _refused(source, number, f"has the action {action!r:.40}", "relabel, drop, keep or nothing")
        if action in ("", "keep"):
            continue
        if action == "relabel" and not suggested:
            raise _refused(source, number, "is to be relabelled and suggests no label", "a label in column suggested")
        text: Input = parts[0] if len(parts) == 1 else tuple(parts)
        row = (key(text), label.strip())
        decided = suggested if action == "relabel" else None
        if labels.setdefault(row, decided) != decided:
            raise _refused(
                source, number, f"decides otherwise of {shortened(text)!r} than a row before", "one decision"
            )
    return Corrections(source, labels)


def corrected(parts: Parts, corrections: Corrections) -> Parts:
    """The parts as they were decided to be, with a sentence on what was done in each.

    Raises:
        DataError: a row is to get a label that no row has, which is a slip of the pen.
    """
    known = {label.strip() for rows in parts.given.values() for label in rows.labels}
    for (text, _), label in corrections.labels.items():
        if label is not None and label not in known:
            raise DataError(
                f"{corrections.source} gives {shortened(text)!r} the label {label!r:.60}, which no row has.",
                expected=f"one of the {len(known):,} labels of the data",
                action="correct column suggested; a new label needs rows in the data itself",
            )
    met: set[_Row] = set()
    made: dict[str, Rows] = {}
    findings: list[str] = []
    for name, rows in parts.given.items():
        made[name], done = _rows(rows, corrections, met)
        if done:
            counts = f"relabelled {counted(done['relabel'], 'row')} and dropped {counted(done['drop'], 'row')}"
            findings.append(f"{corrections.source}: {counts} of the {title(name)}.")
    parts = Parts(made["train"], made.get("validation"), made.get("test"), (*parts.findings, *findings))
    missed = len(corrections.labels) - len(met)
    if missed:
        parts = parts.saying(f"{corrections.source}: {counted(missed, 'decision')} met no row of that text and label.")
    elif not corrections.labels:
        parts = parts.saying(f"{corrections.source} decides nothing: its column action is empty.")
    return parts


def _rows(rows: Rows, corrections: Corrections, met: set[_Row]) -> tuple[Rows, Counter[str]]:
    kept: list[int] = []
    labels = list(rows.labels)
    done: Counter[str] = Counter()
    for place, (text, label) in enumerate(zip(rows.texts, rows.labels, strict=True)):
        row = (key(text), label.strip())
        if row not in corrections.labels:
            kept.append(place)
            continue
        met.add(row)
        decided = corrections.labels[row]
        done["drop" if decided is None else "relabel"] += 1
        if decided is not None:
            labels[place] = decided
            kept.append(place)
    return Rows(rows.texts, tuple(labels)).take(kept), done


def _refused(source: str, number: int, fault: str, expected: str) -> DataError:
    return DataError(
        f"Row {number:,} of {source} {fault}.", expected=expected, action="correct the list, or write it anew"
    )
