"""A plain text file whose lines are marked with who speaks, such as `人类:` and `AI:`, parted into its chats.

Apart from the reading of rows, which knows lines and borders alone. Must not import torch or transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.tune.stepwise.formats.pairs import LANGUAGES


@dataclass(frozen=True)
class MarkedChats:
    """The chats of a file, each with the number of its first line, and how they were told apart."""

    chats: tuple[tuple[int, str], ...]
    finding: str


def marked_chats(text: str, name: str) -> MarkedChats | None:
    """The chats of a text of marked lines; None where it is none.

    It is one if its first words are a question's mark and most questions have an answer. Where empty lines stand before
    questions they part the chats; else nothing tells whether a question goes on with the last, and each begins a chat.

    Args:
        text: with line breaks as newlines.
        name: of the file, for the finding.
    """
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    marks = next((marks for marks in LANGUAGES if marks.asks(first)), None)
    if marks is None:
        return None
    questions = [number for number, line in enumerate(lines) if marks.asks(line)]
    if 2 * sum(marks.answers(line) for line in lines) < len(questions):
        return None
    parted = [number for number in questions if number and not lines[number - 1].strip()]
    by_empty_lines = bool(set(parted) - {questions[0]})
    starts = sorted({questions[0], *parted}) if by_empty_lines else questions
    ends = [*starts[1:], len(lines)]
    chats = [(start + 1, "\n".join(lines[start:end]).strip()) for start, end in zip(starts, ends, strict=True)]
    finding = (
        f"The marked lines of {name} between empty lines are a chat."
        if by_empty_lines
        else f"Each question of {name} begins a chat of its own: no empty lines part them."
    )
    return MarkedChats(tuple(chats), finding)
