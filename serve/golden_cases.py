"""Golden answers: inputs with what a bundle gave for them when it was packed. Must import nothing but msgspec."""

from __future__ import annotations

from typing import Annotated

import msgspec

Tolerance = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class GoldenAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of one task of several: `logits`, `label` and `answer` as a `GoldenCase` of it alone has them."""

    logits: list[float]
    label: str = ""
    answer: list[str | dict[str, str | int]] | float | None = None


class GoldenCase(msgspec.Struct, frozen=True, omit_defaults=True):
    """An input with what the packed graph gave for it when it was packed.

    `label` is the answer of a head of kind `label`, `answer` that of any other, as its `plain` gives it. A head on
    each token has the logits of all tokens, one after the other, of all windows of a text, and `input_ids` their
    ids. Of a pair, `text_pair` is the second text and `type_ids` belong to `input_ids`. Of several tasks `answers` has
    that of each, and `logits` are those of all, one task's behind the other's.
    """

    text: str
    input_ids: list[int]
    logits: list[float]
    label: str = ""
    answer: list[str | dict[str, str | int]] | float | None = None
    text_pair: str | None = None
    type_ids: list[int] = []
    answers: dict[str, GoldenAnswer] = {}

    @property
    def input(self) -> str | tuple[str, str]:
        """What was answered, as a codec takes it."""
        return self.text if self.text_pair is None else (self.text, self.text_pair)


class Golden(msgspec.Struct, frozen=True, omit_defaults=True):
    """Inputs to replay. `tolerance` is the largest allowed difference of a logit, of several tasks each has its own."""

    tolerance: Tolerance
    cases: list[GoldenCase]
    tolerances: dict[str, Tolerance] = {}
