"""Encoded rows with what encoding them showed, cut to the tokens that a model takes; and all of it in sentences.

Apart from the encoding, so that what happens to a row and what is said of it are not tangled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgetune.tune.data.cleaning import counted, title
from edgetune.tune.stepwise.batches import IGNORED
from edgetune.tune.stepwise.chats import Chat
from edgetune.tune.stepwise.faults import places_of

OverLong = Literal["cut", "drop"]
# A row as a causal model learns it: input_ids and labels with a value a token each; the labels are not shifted. A pair
# has rejected_ids and rejected_labels beside them, a row with a vote `liked`, which is [1] or [0].
EncodedRow = dict[str, list[int]]


@dataclass(frozen=True)
class Trace:
    """One encoded row.

    Args:
        chat: what it was made of.
        unconfirmed: answers that could not be told from the rest, and are not learnt.
        crossed: whether a token spans the border of a prompt and its answer.
        left_out: what the template did not write, such as "system turn" or "reasoning text", one each.
        extended: whether the token that ends an answer was taken in, where the template's marks leave it out.
        special: a special token of the tokenizer that stands in the row's own words; empty where none does.
    """

    chat: Chat
    row: EncodedRow
    unconfirmed: int = 0
    crossed: bool = False
    left_out: tuple[str, ...] = ()
    extended: bool = False
    special: str = ""


def learnt_tokens(row: EncodedRow) -> int:
    """How many tokens are learnt: the first has nothing before it to be learnt from."""
    return sum(label != IGNORED for label in row["labels"][1:])


def longest_side(row: EncodedRow) -> int:
    """Tokens of a row; of a pair those of its longer side."""
    return max(len(row["input_ids"]), len(row.get("rejected_ids", ())))


def is_learnable(row: EncodedRow) -> bool:
    """Whether a row has something to learn; of a pair, whether its sides do and differ."""
    if "rejected_ids" not in row:
        return learnt_tokens(row) > 0
    other = {"labels": row["rejected_labels"]}
    differ = [label for label in row["labels"] if label != IGNORED] != [
        label for label in row["rejected_labels"] if label != IGNORED
    ]
    return learnt_tokens(row) > 0 and learnt_tokens(other) > 0 and differ


def prompt_tokens(row: EncodedRow) -> int:
    """Tokens before the first that is learnt; of a text that is learnt whole, all of them."""
    labels = row["labels"]
    first = next((place for place, label in enumerate(labels) if place and label != IGNORED), 0)
    return first if first > 1 else len(labels)


def fit(
    traces: Sequence[Trace], part: str, most: int, over_long: OverLong, *, pieces: bool
) -> tuple[list[Trace], tuple[str, ...]]:
    """The rows that have at most `most` tokens and something to learn, and what became of the others.

    Args:
        pieces: whether a row that is cut gives as many rows as it needs, as a text does; else its end is lost.
    """
    longest = max((longest_side(trace.row) for trace in traces), default=0)
    kept, cut = [], 0
    lost: dict[str, list[str]] = {"dropped": [], "behind": [], "unfound": []}
    for trace in traces:
        whole = longest_side(trace.row) <= most
        fitting = [one for one in _cut(trace, most, pieces=pieces) if is_learnable(one.row)]
        if not is_learnable(trace.row):
            lost["unfound"].append(trace.chat.place)
        elif not whole and over_long == "drop":
            lost["dropped"].append(trace.chat.place)
        elif not fitting:
            lost["behind"].append(trace.chat.place)
        else:
            kept += fitting
            cut += not whole
    of = f"of the {title(part)}"
    how = f"into pieces of at most {most:,} tokens" if pieces else f"to {most:,} tokens"
    findings = [
        f"Cut {counted(cut, 'row')} {of} {how}; the longest had {longest:,}." if cut else "",
        _lost(lost["dropped"], f"{of} longer than {most:,} tokens, the longest of {longest:,}"),
        _lost(
            lost["behind"],
            f"{of} whose answers lie wholly behind token {most:,}, or differ only there"
            if any("rejected_ids" in trace.row for trace in traces)
            else f"{of} whose answers lie wholly behind token {most:,}",
        ),
        _lost(lost["unfound"], f"{of} in which no token to learn was found"),
    ]
    return kept, tuple(filter(None, findings))


def _cut(trace: Trace, most: int, *, pieces: bool) -> list[Trace]:
    """The row in pieces of at most `most` tokens, or the first of them alone."""
    starts = range(0, len(trace.row["input_ids"]), most) if pieces else (0,)
    return [
        replace(trace, row={name: one[start : start + most] for name, one in trace.row.items()}) for start in starts
    ]


def seen(traces: Sequence[Trace], part: str) -> tuple[str, ...]:
    """What encoding showed that a user would not expect."""
    of = f"of the {title(part)}"
    unconfirmed = sum(trace.unconfirmed for trace in traces)
    crossed = [trace for trace in traces if trace.crossed]
    extended = [trace for trace in traces if trace.extended]
    special = [trace for trace in traces if trace.special]
    left_out = Counter(noun for trace in traces for noun in trace.left_out)
    findings = []
    if unconfirmed:
        findings.append(
            f"Not learnt: {counted(unconfirmed, 'answer')} {of}, which the template writes otherwise when turns follow."
        )
    if crossed:
        findings.append(
            f"In {counted(len(crossed), 'row')} {of} a token spans the border of prompt and answer: answering, the "
            "model will see the prompt in other tokens than it learnt with."
        )
    if extended:
        findings.append(
            "The template's marks leave the token that ends an answer out: it is learnt too, in "
            f"{counted(len(extended), 'row')} {of}."
        )
    if left_out:
        nouns = ", ".join(counted(count, noun) for noun, count in left_out.items())
        findings.append(f"The template leaves out, or rewrites, {nouns} {of}.")
    if special:
        places = places_of([trace.chat.place for trace in special])
        findings.append(
            f"The words of {counted(len(special), 'row')} {of} hold special tokens of the tokenizer, such as "
            f"{special[0].special!r}, and are encoded as such: {places}."
        )
    return tuple(findings)


def _lost(places: Sequence[str], why: str) -> str:
    return f"Dropped {counted(len(places), 'row')} {why}: {places_of(places)}." if places else ""
