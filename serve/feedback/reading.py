"""Reading a feedback folder: the answers, each with what people said about it. Must not import the web server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgetune.serve.errors import InputError
from edgetune.serve.feedback.entries import Answered, Entry, Vote
from edgetune.serve.feedback.store import segments

_DECODER: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


@dataclass(frozen=True)
class Judged:
    """One answered request and the votes on it, in the order of their time; of one person on one matter the last."""

    answered: Answered
    votes: tuple[Vote, ...]


@dataclass
class Feedback:
    """What a folder holds.

    Attributes:
        judged: requests with at least one vote, in the order of their time.
        answers: requests that were kept, voted on or not.
        votes: that were kept, the superseded among them.
        torn: lines that could not be read; a process that was killed leaves one at most.
        without_answer: votes on requests that are not in the folder.
        ambiguous: votes on a request id that several requests have.
        unfit: votes that name an answer which the request does not have.
    """

    judged: list[Judged] = field(default_factory=list)
    answers: int = 0
    votes: int = 0
    torn: int = 0
    without_answer: int = 0
    ambiguous: int = 0
    unfit: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """All numbers by name."""
        names = ("answers", "votes", "torn", "without_answer", "ambiguous", "unfit")
        return {name: getattr(self, name) for name in names}


def read_feedback(folder: Path, model: str | None = None) -> Feedback:
    """Read a folder, which servers may be writing to.

    Args:
        folder: of `edgetune serve --feedback`.
        model: the name of the one whose answers are wanted; None takes those of all.

    Raises:
        InputError: there is no such folder, it has no feedback, or none of that model.
    """
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder}.", expected="the folder that edgetune serve --feedback was given"
        )
    feedback = Feedback()
    votes: dict[str, list[Vote]] = {}
    for entry in _entries(folder, feedback):
        if isinstance(entry, Vote):
            feedback.votes += 1
            votes.setdefault(entry.request_id, []).append(entry)
    # A second reading keeps no answer in memory that nobody spoke about.
    asked: dict[str, list[Answered]] = {}
    models: Counter[str] = Counter()
    for entry in _entries(folder, Feedback()):
        if isinstance(entry, Answered):
            models[entry.model] += 1
            if entry.request_id in votes:
                asked.setdefault(entry.request_id, []).append(entry)
    feedback.answers = sum(models.values()) if model is None else models[model]
    if model is not None and model not in models:
        raise InputError(
            f"No answer of a model {model!r} was kept in {folder}.",
            expected=", ".join(sorted(models)) or "answers, of which there are none",
        )
    if not feedback.answers and not feedback.votes:
        raise InputError(f"{folder} holds no feedback.", expected="the folder that edgetune serve --feedback was given")
    for request_id, given in votes.items():
        _join(feedback, given, asked.get(request_id, []), model)
    feedback.judged.sort(key=lambda judged: judged.answered.time)
    return feedback


def _join(feedback: Feedback, votes: list[Vote], answers: list[Answered], model: str | None) -> None:
    if not answers:
        feedback.without_answer += len(votes)
        return
    if len(answers) > 1:
        feedback.ambiguous += len(votes)
        return
    (answered,) = answers
    if model is not None and answered.model != model:
        return
    fitting = [vote for vote in votes if fits(vote, len(answered.answers))]
    feedback.unfit += len(votes) - len(fitting)
    last: dict[tuple[object, ...], Vote] = {}
    for vote in sorted(fitting, key=lambda vote: vote.time):
        last[matter_of(vote)] = vote
    if last:
        feedback.judged.append(Judged(answered, tuple(last.values())))


def fits(vote: Vote, answers: int) -> bool:
    """Whether a vote speaks of answers that a request with so many has."""
    return max(vote.index, vote.choice or 0, vote.over or 0) < answers


def matter_of(vote: Vote) -> tuple[object, ...]:
    """Who speaks of what: of votes with the same, the last one counts."""
    if vote.choice is not None:
        return (vote.person, "choice", frozenset((vote.choice, vote.over)))
    kind = "vote" if vote.vote is not None else "correction"
    return (vote.person, kind, vote.index)


def _entries(folder: Path, feedback: Feedback) -> Iterator[Entry]:
    for path in segments(folder):
        try:
            stream = path.open("rb")
        except FileNotFoundError:  # it has just made room for another
            continue
        with stream:
            for line in stream:
                try:
                    yield _DECODER.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    feedback.torn += 1
