"""Rows that teach nothing or deceive: empty ones, duplicates, one text under two labels, and rows that stand
in two parts and would make a test look better than it is. Whatever is removed is counted and said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from edgetune.serve.codecs import stripped
from edgetune.tune.data.rows import Input, Parts, Rows, each_text, is_blank, key, shortened

WHOLE_FLOAT = re.compile(r"([+-]?\d+)\.0+")
WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0+)?")


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 row`, `2 rows`, `1,204 rows`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def clean(parts: Parts, *, normalize: bool, deduplicate: bool) -> Parts:
    """Make the labels' words one, tidy the texts, drop what is empty, and remove duplicates.

    A validation or test part that the user gave keeps its duplicates, so that a score on it can be compared
    with others; they are counted. Rows that also stand in a later part leave the earlier one.
    """
    parts = _with_whole_numbers(parts)
    for name in ("train", "validation", "test"):
        rows: Rows | None = getattr(parts, name)
        if rows is None:
            continue
        parts = _tidy(parts, name, rows) if normalize else parts
        parts = _drop_empty(parts, name)
        parts = _deduplicate(parts, name, remove=deduplicate)
    for part, others in (("train", ("validation", "test")), ("validation", ("test",))):
        for other in others:
            parts = _separate(parts, part, other, remove=deduplicate)
    return parts


def title(part: str) -> str:
    """How a finding speaks of a part."""
    return {"train": "training data"}.get(part, f"{part} part")


def all_whole_numbers(labels: Collection[str]) -> bool:
    """Whether all labels are whole numbers, and so have a numerical order; some write 1.0 for 1."""
    return bool(labels) and all(WHOLE_NUMBER.fullmatch(label) for label in labels)


def _with_whole_numbers(parts: Parts) -> Parts:
    """Write 1.0 as 1 where all labels of all parts are whole numbers: a column with a gap becomes floats."""
    given = [rows for rows in (parts.train, parts.validation, parts.test) if rows is not None]
    if not all_whole_numbers({label.strip() for rows in given for label in rows.labels} - {""}):
        return parts

    def rewritten(rows: Rows | None) -> Rows | None:
        if rows is None:
            return None
        return Rows(rows.texts, tuple(WHOLE_FLOAT.sub(r"\1", label.strip()) for label in rows.labels))

    train = rewritten(parts.train) or parts.train
    return replace(parts, train=train, validation=rewritten(parts.validation), test=rewritten(parts.test))


def _tidy(parts: Parts, name: str, rows: Rows) -> Parts:
    texts = tuple(each_text(stripped, text) for text in rows.texts)
    labels = tuple(map(stripped, rows.labels))
    changed = sum(a != b for a, b in zip(texts, rows.texts, strict=True))
    parts = _with(parts, name, Rows(texts, labels))
    if not changed:
        return parts
    return parts.saying(f"Stripped {counted(changed, 'text')} of the {title(name)} of outer white space, NUL or BOM.")


def _drop_empty(parts: Parts, name: str) -> Parts:
    rows: Rows = getattr(parts, name)
    texts = [i for i, text in enumerate(rows.texts) if not is_blank(text)]
    kept = [i for i in texts if rows.labels[i].strip()]
    no_text, no_label = len(rows) - len(texts), len(texts) - len(kept)
    for count, what in ((no_text, "text"), (no_label, "label")):
        if count:
            parts = parts.saying(f"Dropped {counted(count, 'row')} without {what} from the {title(name)}.")
    return _with(parts, name, rows.take(kept))


def _deduplicate(parts: Parts, name: str, *, remove: bool) -> Parts:
    """Keep one row of each text, under the label that most of its rows have; ties go to the first seen."""
    rows: Rows = getattr(parts, name)
    votes: dict[Input, Counter[str]] = {}
    for text, label in zip(rows.texts, rows.labels, strict=True):
        votes.setdefault(key(text), Counter())[label] += 1
    removing = remove and name == "train"
    parts = parts.saying(*_duplicate_findings(rows, votes, name, removed=removing))
    if not removing:
        return parts
    # Counter.most_common keeps the order of first sight among equals.
    winners = {text: counter.most_common(1)[0][0] for text, counter in votes.items()}
    seen: set[Input] = set()
    kept = []
    for i, (text, label) in enumerate(zip(map(key, rows.texts), rows.labels, strict=True)):
        if text not in seen and winners[text] == label:
            seen.add(text)
            kept.append(i)
    return _with(parts, name, rows.take(kept))


def _duplicate_findings(rows: Rows, votes: dict[Input, Counter[str]], name: str, *, removed: bool) -> tuple[str, ...]:
    pairs = sum(map(len, votes.values()))
    conflicts = {text: counter for text, counter in votes.items() if len(counter) > 1}
    findings = []
    if duplicates := len(rows) - pairs:
        did, where = ("Removed", "from") if removed else ("Kept", "in")
        findings.append(
            f"{did} {counted(duplicates, 'duplicate row')} {where} the {title(name)}: the same label and, "
            "but for case and spacing, the same text."
        )
    if conflicts:
        text, labels = next(iter(conflicts.items()))
        example = " and ".join(f"{label!r} ({counted(count, 'row')})" for label, count in labels.items())
        fate = "the label of most rows was kept, at a tie the first" if removed else "all rows are kept"
        findings.append(
            f"Found {counted(len(conflicts), 'text')} of the {title(name)} under more than one label, such "
            f"as {shortened(text)!r} under {example}: {fate}."
        )
    return tuple(findings)


def _separate(parts: Parts, part: str, other: str, *, remove: bool) -> Parts:
    """Take out of `part` the rows whose text also stands in `other`."""
    rows: Rows | None = getattr(parts, part)
    later: Rows | None = getattr(parts, other)
    if rows is None or later is None:
        return parts
    held_out = set(map(key, later.texts))
    kept = [i for i, text in enumerate(rows.texts) if key(text) not in held_out]
    shared = len(rows) - len(kept)
    if not shared:
        return parts
    did, where = ("Removed", "from") if remove else ("Kept", "in")
    parts = parts.saying(
        f"{did} {counted(shared, 'row')} {where} the {title(part)} with a text that also stands in the {title(other)}."
    )
    return _with(parts, part, rows.take(kept)) if remove else parts


def _with(parts: Parts, name: str, rows: Rows) -> Parts:
    if name == "train":
        return replace(parts, train=rows)
    return replace(parts, validation=rows) if name == "validation" else replace(parts, test=rows)
