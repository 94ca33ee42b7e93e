"""Rows of the next build's data from a feedback folder: labels, preferences, votes or answers. Floor packages alone.

Of several people who judged the same, most decide; where as many say one thing as another, the row is left out and
counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgetune.serve.errors import InputError
from edgetune.serve.feedback.entries import Vote
from edgetune.serve.feedback.reading import Feedback, Judged

Row = dict[str, Any]
# An input or prompt, and what is said of it.
_Said = tuple[Any, Any]


@dataclass(frozen=True)
class FeedbackRows:
    """Rows of one kind, and how many judgements were no row: people differ, or said only that a label is wrong."""

    kind: str
    rows: tuple[Row, ...]
    disputed: int = 0
    without_label: int = 0


def labelled_rows(feedback: Feedback) -> FeedbackRows:
    """Rows (text [, text_pair], label): corrections, and labels of the model's that people found right."""
    said, without = [], 0
    for judged in feedback.judged:
        for vote in judged.votes:
            answer = judged.answered.answers[vote.index]
            if answer.label is None:
                continue
            label = vote.label if vote.label is not None else answer.label if vote.vote == "up" else None
            if label is None:
                without += not any(other.label is not None and other.index == vote.index for other in judged.votes)
            elif not _is_superseded(vote, judged):
                said.append((judged.answered.inputs[answer.input], label))
    decided, disputed = _decided(said)
    return FeedbackRows(
        "labels", tuple({**_as_columns(value), "label": label} for value, label in decided), disputed, without
    )


def preference_rows(feedback: Feedback) -> FeedbackRows:
    """Rows (prompt, chosen, rejected), as TRL's `DPOTrainer` reads them: choices, and texts that people wrote."""
    said: list[tuple[Any, tuple[str, str]]] = []
    disputed = 0
    for judged in feedback.judged:
        answered = judged.answered
        balance: Counter[tuple[int, int]] = Counter()
        for vote in judged.votes:
            if vote.choice is not None and vote.over is not None:
                first, second = sorted((vote.choice, vote.over))
                balance[first, second] += 1 if vote.choice == first else -1
            written = answered.answers[vote.index].text
            if vote.text is not None and written is not None and vote.text != written:
                said.append((answered.inputs[answered.answers[vote.index].input], (vote.text, written)))
        for (first, second), points in balance.items():
            better, worse = (answered.answers[place] for place in ((first, second) if points > 0 else (second, first)))
            if points == 0 or better.input != worse.input:
                disputed += points == 0
            elif better.text is not None and worse.text is not None and better.text != worse.text:
                said.append((answered.inputs[better.input], (better.text, worse.text)))
    rows = [
        {"prompt": prompt, "chosen": _as_answer(prompt, chosen), "rejected": _as_answer(prompt, rejected)}
        for prompt, (chosen, rejected) in said
    ]
    return FeedbackRows("pairs", _distinct(rows), disputed)


def vote_rows(feedback: Feedback) -> FeedbackRows:
    """Rows (prompt, completion, label), label true for a good one, as TRL's `KTOTrainer` reads them."""
    said = [
        ((judged.answered.inputs[answer.input], answer.text), vote.vote == "up")
        for judged in feedback.judged
        for vote in judged.votes
        if vote.vote is not None and (answer := judged.answered.answers[vote.index]).text is not None
    ]
    decided, disputed = _decided(said)
    rows = [
        {"prompt": prompt, "completion": _as_answer(prompt, text), "label": good} for (prompt, text), good in decided
    ]
    return FeedbackRows("votes", tuple(rows), disputed)


def answer_rows(feedback: Feedback) -> FeedbackRows:
    """Rows (prompt, completion) to learn by supervision: what people wrote instead of an answer."""
    said = [
        (judged.answered.inputs[judged.answered.answers[vote.index].input], vote.text)
        for judged in feedback.judged
        for vote in judged.votes
        if vote.text is not None and judged.answered.answers[vote.index].text is not None
    ]
    rows = [{"prompt": prompt, "completion": _as_answer(prompt, text)} for prompt, text in said]
    return FeedbackRows("answers", _distinct(rows))


KINDS: Mapping[str, Callable[[Feedback], FeedbackRows]] = {
    "labels": labelled_rows,
    "pairs": preference_rows,
    "votes": vote_rows,
    "answers": answer_rows,
}


def rows_of(feedback: Feedback, kind: str) -> FeedbackRows:
    """The rows of a kind, or of the only one that there is where `kind` is auto.

    Raises:
        InputError: there is none, or of several kinds none was named.
    """
    kinds = {name: make(feedback) for name, make in KINDS.items() if kind in ("auto", name)}
    filled = {name: rows for name, rows in kinds.items() if rows.rows}
    if not filled:
        shown = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in feedback.counts.items())
        raise InputError(
            "The feedback makes no row" + ("." if kind == "auto" else f" of the kind {kind!r}."),
            expected="corrections, choices or votes on answers that the folder holds",
            action=f"what it holds: {shown}",
        )
    if len(filled) > 1:
        counts = ", ".join(f"{name} ({len(rows.rows):,} rows)" for name, rows in filled.items())
        raise InputError(f"The feedback makes rows of several kinds: {counts}.", action="name one with --kind")
    return next(iter(filled.values()))


def as_json_lines(rows: Iterable[Row]) -> str:
    """The rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _is_superseded(vote: Vote, judged: Judged) -> bool:
    """Whether the same person has corrected what they voted on."""
    return vote.vote is not None and any(
        other.label is not None and (other.person, other.index) == (vote.person, vote.index) for other in judged.votes
    )


def _decided(said: Iterable[_Said]) -> tuple[list[_Said], int]:
    """What most say of each, in the order of the first word on it; and of how many as many say otherwise."""
    matters: dict[str, tuple[Any, Counter[Any]]] = {}
    for value, word in said:
        matters.setdefault(json.dumps(value, sort_keys=True), (value, Counter()))[1][word] += 1
    decided, disputed = [], 0
    for value, words in matters.values():
        (best, most), *others = words.most_common(2)
        if others and others[0][1] == most:
            disputed += 1
        else:
            decided.append((value, best))
    return decided, disputed


def _distinct(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple({json.dumps(row, sort_keys=True): row for row in rows}.values())


def _as_columns(value: Any) -> Row:
    """A text, or a pair of texts, as columns."""
    return dict(_named_parts(value))


def _named_parts(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        yield from zip(("text", "text_pair"), value, strict=False)
    else:
        yield "text", value


def _as_answer(prompt: Any, text: str) -> Any:
    """An answer in the form that its prompt has: a text, or a chat's messages."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
