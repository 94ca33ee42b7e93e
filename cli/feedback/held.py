"""The rows of a turn of the loop: a recipe's own, with what people corrected laid over them.

A correction of a text that the data has takes the place of its label, in whichever part the text stands. Other texts
join the training part, but for a share that judges. To which part a text belongs its own words decide, so that a row
that judged once is never learnt in a later turn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgetune.feedback.rows import Row, as_json_lines
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.json_types import JsonObject
from edgetune.tune.data.dataset import PART_NAMES, Dataset, Part
from edgetune.tune.data.rows import Input, key
from edgetune.writing import write_text

CORRECTIONS_NAME = "corrections.jsonl"
HELD_OUT_SHARES = (("test", 0.2), ("validation", 0.1))


class Correction(msgspec.Struct, frozen=True, omit_defaults=True):
    """One text, its label by the people, and the part that it stands in where the data itself does not have it."""

    text: str
    label: str
    text_pair: str | None = None
    part: str = ""

    @property
    def input(self) -> Input:
        """What is answered, as a data set has it."""
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True)
class TurnRows:
    """The rows of one turn.

    Attributes:
        parts: rows by the name of their part.
        corrections: all until now, those of earlier turns among them.
        relabelled: rows of the data whose label people corrected.
        added: rows that the data did not have.
        new: corrections that no earlier turn had.
    """

    parts: Mapping[str, Sequence[Row]]
    corrections: tuple[Correction, ...]
    relabelled: int
    added: int
    new: int

    @property
    def digest(self) -> str:
        """A digest of all rows."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()

    def write(self, folder: Path) -> JsonObject:
        """Write a file a part, and give the section `data` of a recipe that reads them."""
        section: JsonObject = {"text": "text", "label": "label"}
        if "text_pair" in self.parts["train"][0]:
            section["text_pair"] = "text_pair"
        for name, rows in self.parts.items():
            if rows:
                path = folder / f"{name}.jsonl"
                write_text(path, as_json_lines(rows), option="--out")
                section[name] = str(path)
        return section


def earlier_corrections(folder: Path) -> tuple[Correction, ...]:
    """What earlier turns have learnt; nothing where there was none.

    Raises:
        BundleDamaged: the file is none of a turn's.
    """
    path = folder / CORRECTIONS_NAME
    if not path.is_file():
        return ()
    try:
        return tuple(msgspec.json.decode(line, type=Correction) for line in path.read_bytes().splitlines())
    except msgspec.DecodeError as error:
        raise BundleDamaged(
            f"{path} is no list of corrections: {error}.",
            expected="the file as edgetune loop wrote it",
            action="remove it, and the corrections of earlier turns are read from the feedback folder alone",
        ) from error


def keep_corrections(folder: Path, rows: TurnRows) -> None:
    """Write what later turns are to learn too, though the feedback folder may not have it any more."""
    write_text(
        folder / CORRECTIONS_NAME,
        "".join(msgspec.json.encode(each).decode() + "\n" for each in rows.corrections),
        option="--out",
    )


def turn_rows(dataset: Dataset, earlier: Sequence[Correction], given: Sequence[Row]) -> TurnRows:
    """Lay corrections over a data set.

    Args:
        dataset: of the recipe, split as its builds split it.
        earlier: of earlier turns.
        given: rows (text [, text_pair], label) of the feedback folder, which lie over the earlier ones.
    """
    before = {key(each.input): each for each in earlier}
    fresh = {key(each.input): each for each in (msgspec.convert(row, Correction) for row in given)}
    merged = {**before, **fresh}
    known: set[Input] = set()
    parts: dict[str, list[Row]] = {}
    relabelled = 0
    for name in PART_NAMES:
        rows = []
        for text, label in _labelled(dataset, getattr(dataset, name)):
            known.add(key(text))
            correction = merged.get(key(text))
            right = label if correction is None else correction.label
            relabelled += right != label
            rows.append(_row(text, right))
        parts[name] = rows
    learnt = {row["label"] for row in parts["train"]}
    placed: list[Correction] = []
    for text, each in merged.items():
        if text in known:
            placed.append(msgspec.structs.replace(each, part=""))
            continue
        part = before[text].part if text in before and before[text].part else part_of(text)
        if part == "train":
            learnt.add(each.label)
        placed.append(msgspec.structs.replace(each, part=part))
    # What no training row has cannot be judged: the first rows of a new label are learnt.
    placed = [_learnt(each, learnt) for each in placed]
    for each in placed:
        if each.part:
            parts[each.part].append(_row(each.input, each.label))
    new = sum(before.get(text) is None or before[text].label != each.label for text, each in fresh.items())
    return TurnRows(parts, tuple(placed), relabelled, sum(bool(each.part) for each in placed), new)


def part_of(text: Input) -> str:
    """The part that a text of the feedback belongs to, in every turn the same."""
    digest = hashlib.sha256(json.dumps(key(text)).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in HELD_OUT_SHARES:
        if place < share:
            return name
        place -= share
    return "train"


def _learnt(each: Correction, learnt: set[str]) -> Correction:
    return each if not each.part or each.label in learnt else msgspec.structs.replace(each, part="train")


def _labelled(dataset: Dataset, part: Part) -> list[tuple[Input, str]]:
    return [
        (text, dataset.labels[target])
        for text, target in zip(part.texts, part.targets, strict=True)
        if isinstance(target, int)
    ]


def _row(text: Input, label: str) -> Row:
    texts = (text,) if isinstance(text, str) else text
    return {**dict(zip(("text", "text_pair"), texts, strict=False)), "label": label}
