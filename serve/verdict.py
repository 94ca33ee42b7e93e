"""The verdict on a build: what it is held against, how it compares row by row, and whether to ship it.

Values of `Report`, which documents them in docs/report-format.md; the rules are in benchmarks/report/decision.py.
"""

from __future__ import annotations

import msgspec

# The models of the floor, by their names in reports.
MAJORITY, LINEAR = "majority", "linear"


class FloorQuality(msgspec.Struct, frozen=True, kw_only=True):
    """A model that costs nothing or seconds, on the rows of the ledger: `majority`, one constant answer, or `linear`.

    `value` is the metric with its 95% interval `ci95`; `described` says what it is and what it learnt from;
    `cpu_seconds` is what fitting it took.
    """

    stage: str
    value: float
    ci95: list[float]
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    described: str
    cpu_seconds: float = 0.0


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two models on the same rows: what is lost from `reference` to `candidate`, names of stages or of the floor.

    `drop` is the reference's value minus the candidate's, of an error the relative rise; negative is a gain.
    `drop_interval` is its paired 95% interval, `p_value` McNemar's exact test, None for metrics other than accuracy.
    """

    reference: str
    candidate: str
    drop: float
    drop_interval: list[float]
    p_value: float | None


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a bundle should not be shipped, or only with care: the rule that says so, and a clause with its figures."""

    rule: str
    sentence: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with a build: `ship` is "yes", "with care" or "no", for the reasons, the weightiest first.

    Reasons beside a "yes" say nothing against the bundle, but what the next build could do otherwise.
    """

    ship: str
    reasons: list[Reason] = msgspec.field(default_factory=list)

    @property
    def headline(self) -> str:
        """The decision in a word or two, the beginning of a sentence that the reasons end."""
        words = {"yes": "Ship", "with care": "Ship with care", "no": "Do not ship"}[self.ship]
        if not self.reasons:
            return words
        return f"{words}; note that" if self.ship == "yes" else f"{words}, because"

    @property
    def sentence(self) -> str:
        """The decision with all its reasons."""
        return f"{self.headline} {'; '.join(reason.sentence for reason in self.reasons)}".rstrip() + "."

    @property
    def lines(self) -> list[str]:
        """The decision, and below it each reason."""
        return [self.headline + ":" * bool(self.reasons), *(f"- {reason.sentence}" for reason in self.reasons)]
