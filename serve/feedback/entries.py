"""The lines of a feedback folder, JSON each: answers as they were given, and what people said about them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Person = Annotated[str, msgspec.Meta(max_length=128)]


class GivenAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer to the input of number `input`: a prediction's members, or the text that a language model wrote."""

    input: Number = 0
    text: str | None = None
    label: str | None = None
    score: float | None = None
    value: Any = None


class Answered(msgspec.Struct, frozen=True, tag="answer", tag_field="kind", omit_defaults=True):
    """One request that was answered.

    Attributes:
        time: UTC, ISO 8601.
        request_id: as the header X-Request-Id told it.
        model, version: what answered, and which bundle of it: the beginning of its graph's digest.
        inputs: texts, pairs of texts as lists, or a chat's messages.
        answers: of classifiers one an input, of language models one or several a prompt.
        arm: where traffic is split, the model that the request was dealt to.
    """

    time: str
    request_id: str
    model: str
    version: str
    inputs: list[Any]
    answers: list[GivenAnswer]
    arm: str = ""


class Vote(msgspec.Struct, frozen=True, tag="vote", tag_field="kind", omit_defaults=True):
    """What one person said about one answer: exactly one of vote, choice, label and text.

    Attributes:
        index: number of the answer.
        vote: whether it was good.
        choice, over: the number of the answer that was better, and of the one that it was better than.
        label: what a classifier should have answered.
        text: what a language model should have written.
        person: who judged, by a name of the client's; of one person the last word counts.
    """

    time: str
    request_id: str
    index: Number = 0
    vote: Literal["up", "down"] | None = None
    choice: Number | None = None
    over: Number | None = None
    label: str | None = None
    text: str | None = None
    person: str = ""


Entry = Answered | Vote
