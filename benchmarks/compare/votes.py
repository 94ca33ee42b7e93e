"""Votes on answers of live traffic, from JSON Lines: which arm answered, and whether somebody found the answer good.

A line has an `arm` and a `vote` (true or false, 1 or 0, "up" or "down"), or `preferred`, the arm that was preferred of
`arms`, two names, or "tie". Where requests and votes are kept apart, both have a `request_id`: the request's line tells
the arm and the vote's the vote. So does a folder of `edgetune serve --split --feedback`, where a corrected label or
text is a vote too: good where the label is the one that was answered. Of several votes on one request the last counts,
at its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgetune.benchmarks.compare.sequential import (
    ArmCounts,
    Blocks,
    SequentialVerdict,
    blocks_verdict,
    sequential_verdict,
)
from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.errors import InputError

_GOOD: dict[object, bool] = {True: True, False: False, "up": True, "down": False, "good": True, "bad": False}
_EXPECTED = 'lines such as {"arm": "a", "vote": "up"} or {"arms": ["a", "b"], "preferred": "b"}'


@dataclass(frozen=True)
class Votes:
    """Votes in the order in which they came.

    Attributes:
        arms: of each vote.
        good: whether each finds the answer good.
        pairs: preferences: the two arms, and how many good points the second is ahead: 1, 0 or -1.
        skipped: lines that are no JSON, as a torn last one, or votes on no known request.
    """

    arms: tuple[str, ...]
    good: tuple[bool, ...]
    pairs: tuple[tuple[str, str, int], ...]
    skipped: int

    @property
    def findings(self) -> list[str]:
        """Sentences on what was left out."""
        return [f"{self.skipped:,} line(s) were left out: no JSON, or no known request."] if self.skipped else []


def read_votes(paths: Sequence[Path]) -> Votes:
    """Read files, and the .jsonl files of folders in the order of their names.

    Raises:
        InputError: a file cannot be read, or there is no vote in any.
    """
    arm_of: dict[str, str] = {}
    answers_of: dict[str, list[Any]] = {}
    votes: dict[object, tuple[str | None, bool]] = {}
    pairs: list[tuple[str, str, int]] = []
    skipped = 0
    for number, line in enumerate(_lines(paths)):
        record = _record(line)
        if record is None:
            skipped += 1
            continue
        request, arm = record.get("request_id"), record.get("arm")
        if isinstance(request, str) and isinstance(arm, str):
            arm_of[request] = arm
            answers_of[request] = record.get("answers") or []
        if (pair := _preference(record)) is not None:
            pairs.append(pair)
        elif (good := _good(record, answers_of)) is not None:
            key = request if isinstance(request, str) else number
            votes.pop(key, None)
            votes[key] = (arm if isinstance(arm, str) else None, good)
    known = [(arm or arm_of.get(str(key)), good) for key, (arm, good) in votes.items()]
    told = [(arm, good) for arm, good in known if arm is not None]
    if not told and not pairs:
        raise InputError(f"There is no vote in {', '.join(map(str, paths))}.", expected=_EXPECTED)
    return Votes(
        tuple(arm for arm, _ in told), tuple(good for _, good in told), tuple(pairs), skipped + len(known) - len(told)
    )


def judge_votes(votes: Votes, control: str = "", alpha: float = 0.05) -> list[SequentialVerdict]:
    """The verdict on each arm against the control, together at the level `alpha` (Bonferroni).

    Args:
        votes: of two arms or more.
        control: the arm that others are held against; "" takes that of the first vote.

    Raises:
        InputError: there is one arm, no such control, or votes and preferences are mixed.
    """
    names = list(dict.fromkeys([*votes.arms, *(name for first, second, _ in votes.pairs for name in (first, second))]))
    control = control or names[0]
    if control not in names or len(names) < 2:
        raise InputError(
            f"The votes are on {', '.join(names)}.",
            expected=f"the control {control} and another arm",
            action="--control",
        )
    if votes.pairs and votes.arms:
        raise InputError("There are votes on single answers and preferences between two.", expected="files of one kind")
    others = [name for name in names if name != control]
    level = alpha / len(others)
    if votes.arms:
        return [sequential_verdict(votes.good, votes.arms, (control, other), level) for other in others]
    return [_preferred(votes, control, other, level) for other in others]


def _preferred(votes: Votes, control: str, arm: str, alpha: float) -> SequentialVerdict:
    """Preferences between two arms: each is a block by itself."""
    import numpy as np

    ahead = [
        side if first == control else -side for first, second, side in votes.pairs if {first, second} == {control, arm}
    ]
    differences = np.asarray(ahead, dtype=np.float64)
    blocks = Blocks(differences, np.arange(1, len(ahead) + 1))
    counts = [ArmCounts(name, len(ahead), ahead.count(side)) for name, side in ((control, -1), (arm, 1))]
    return blocks_verdict(blocks, counts[0], counts[1], alpha)


def _lines(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        for file in files:
            try:
                yield from (line for line in file.read_bytes().splitlines() if line.strip())
            except OSError as error:
                raise InputError(f"{file} cannot be read: {error.strerror}.", expected=_EXPECTED) from error


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except NOT_JSON:
        return None


def _good(record: dict[str, Any], answers_of: Mapping[str, Sequence[Any]]) -> bool | None:
    """Whether a line finds an answer good; None where it is no vote."""
    vote, label = record.get("vote"), record.get("label")
    if isinstance(vote, (bool, int, str)):
        return _GOOD.get(vote)
    if record.get("kind") != "vote" or not (label or record.get("text")):
        return None
    given = dict(enumerate(answers_of.get(str(record.get("request_id")), ()))).get(record.get("index", 0))
    return isinstance(given, dict) and label is not None and given.get("label") == label


def _preference(record: dict[str, Any]) -> tuple[str, str, int] | None:
    arms, preferred = record.get("arms"), record.get("preferred")
    if not (isinstance(arms, list) and len(arms) == 2 and preferred in (*arms, "tie")):
        return None
    return str(arms[0]), str(arms[1]), 0 if preferred == "tie" else 1 if preferred == arms[1] else -1
