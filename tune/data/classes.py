"""The classes of a data set: whether they can be learnt and judged, and the order that their numbers follow.

Stands apart from the data set, because most of what a user can do wrong with labels is said here.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import all_whole_numbers, counted, title
from edgetune.tune.data.dialect import NUMBER
from edgetune.tune.data.rows import Parts, Rows

NO_LABELS = frozenset({"nan", "null", "none", "n/a", "na", "#n/a", "nil", "(null)", "<na>", "-", "?"})
# What stands for a label that is not shown, in the test parts of competitions and benchmarks.
HIDDEN = {"-1", "-1.0"}


def without_empty_parts(parts: Parts) -> Parts:
    """Leave out a given part in which no row is left, or none with a label: many public test parts hide theirs."""
    for name in ("validation", "test"):
        rows: Rows | None = getattr(parts, name)
        if rows is None:
            continue
        if not len(rows):
            why = "0 of its rows have a text and a label"
        elif set(rows.labels) <= HIDDEN and not HIDDEN & set(parts.train.labels):
            why = f"all of its labels are {rows.labels[0]}, as hidden ones are"
        else:
            continue
        parts = parts.saying(f"The {title(name)} is left out: {why}.")
        parts = replace(parts, validation=None) if name == "validation" else replace(parts, test=None)
    return parts


def check_rows(parts: Parts, source: str) -> None:
    """Refuse a data set of which no training row is left.

    Raises:
        DataError: no row can be learnt from.
    """
    if not len(parts.train):
        raise DataError(
            f"No training row of {source} is left after cleaning. {' '.join(parts.findings)}",
            expected="rows with a text and a label that stand in no other part.",
            action="name other rows for training than for validation and test.",
        )


def check_classes(parts: Parts, source: str) -> None:
    """Refuse what no classifier can be learnt from, or judged by.

    Raises:
        DataError: one class only, a label that training never saw, or mostly classes of one row.
    """
    counts = Counter(parts.train.labels)
    if len(counts) == 1:
        raise DataError(
            f"All {counted(len(parts.train), 'row')} of {source} have the label {parts.train.labels[0]!r}.",
            expected="two classes or more.",
            action="add rows of another class, or name the label column with --set data.label=...",
        )
    for name in ("validation", "test"):
        rows: Rows | None = getattr(parts, name)
        check_unseen(name, rows.labels if rows else (), counts)
    counts.update(parts.validation.labels if parts.validation else ())
    few = [label for label, count in counts.items() if count < 2]
    if 2 * len(few) <= len(counts) or (parts.validation and parts.test):
        return
    numbers = len(few) > 3 and all(map(NUMBER.fullmatch, few))
    raise DataError(
        f"{counted(len(few), 'class', 'classes')} of the {len(counts):,} of {source} with fewer than two "
        f"{'training and validation rows' if parts.test else 'rows'}: {_some(few)}."
        + " The labels are numbers that hardly repeat, as those of a regression."
        * numbers,
        expected="at least two different rows for half of the classes: one to learn from, one to choose or judge by.",
        action="add --task text-regression, or name another column with --set data.label=..."
        if numbers
        else "add rows of these classes, or remove those there are.",
    )


def label_findings(counts: Counter[str]) -> tuple[str, ...]:
    """What is said of labels that may be the same, mean none, or are judged by no row; `counts` are of all rows."""
    alike: dict[str, list[str]] = {}
    for label in sorted(counts):
        alike.setdefault(_bare(label), []).append(label)
    groups = [labels for labels in alike.values() if len(labels) > 1]
    findings = []
    if groups:
        shown = "; ".join(", ".join(f"{label!a} ({counts[label]:,})" for label in group) for group in groups[:3])
        more = f"; and {len(groups) - 3:,} more" if len(groups) > 3 else ""
        findings.append(
            "Labels differ in case, spacing, invisible signs or normalisation alone, and are classes of their own: "
            f"{shown}{more}. Make them one in the data if they are."
        )
    missing = [label for label in counts if label.casefold() in NO_LABELS]
    if missing:
        shown = ", ".join(f"{label!r} ({counts[label]:,})" for label in missing)
        findings.append(f"Labels look like no value, and are classes as they stand: {shown}. Empty those cells if so.")
    single = [label for label, count in counts.items() if count == 1]
    if single:
        noun = counted(len(single), "label has", "labels have")
        findings.append(f"{noun} one row only, which is learnt from, and none to judge by: {_some(single)}.")
    return tuple(findings)


def _bare(label: str) -> str:
    """A label without what the eye does not see: case, spacing, format characters, and the form of its letters."""
    plain = unicodedata.normalize("NFKC", label).casefold()
    return " ".join("".join(sign for sign in plain if unicodedata.category(sign) != "Cf").split())


def check_unseen(name: str, labels: Iterable[str], seen: Container[str]) -> None:
    """Refuse a part with labels that training never saw.

    Raises:
        DataError: naming them with their rows.
    """
    unseen = Counter(label for label in labels if label not in seen)
    if unseen:
        listed = [f"{label!r} ({counted(count, 'row')})" for label, count in unseen.most_common()]
        raise DataError(
            f"The {title(name)} has labels that no training row has: {', '.join(listed[:10])}"
            f"{f' and {len(listed) - 10:,} more' if len(listed) > 10 else ''}.",
            expected="training rows for every label.",
            action="add training rows of these labels, mend their spelling, or remove those rows.",
        )


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 10:,} more" if len(labels) > 10 else ""
    return ", ".join(map(repr, labels[:10])) + more


def ordered_labels(labels: set[str], label_order: Sequence[str] | None) -> tuple[str, ...]:
    """`label_order` where it has just these labels; else whole numbers by value and words by code point."""
    if label_order is not None and len(label_order) == len(labels) and set(label_order) == labels:
        return tuple(label_order)
    if all_whole_numbers(labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))
