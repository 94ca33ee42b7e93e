"""The golden answer of one task, where a bundle answers several. Must import nothing but msgspec, as bundle.py."""

from __future__ import annotations

import msgspec


class GoldenAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of one task of several: `logits`, `label` and `answer` as a `GoldenCase` of it alone has them."""

    logits: list[float]
    label: str = ""
    answer: list[str | dict[str, str | int]] | float | None = None
