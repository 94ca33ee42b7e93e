"""What a report says of confidence: how far probabilities are shares of right answers, and what is answered at all.

Beside report.py, whose `Report` holds both values. A figure that could not be measured is None, never 0.
"""

from __future__ import annotations

import msgspec


class CalibrationFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How far probabilities lie from shares of right answers; less is better.

    `ece_equal_mass` and `ece_equal_width` are expected calibration errors over 15 bins, of as many rows each and of the
    same width; `nll` is the negative log-likelihood in nats and `brier` the Brier score, both a row. Of several labels
    every label of a row counts as an answer of its own.
    """

    ece_equal_mass: float
    ece_equal_width: float
    nll: float
    brier: float


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """`n` answers of neighbouring probabilities: their mean probability, and the share of them that is right."""

    n: int
    confidence: float
    right: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the packed bundle's probabilities can be taken for shares of right answers, on `n` test rows.

    `temperature` is what its logits are divided by, fitted on `fitted_rows` validation rows, and 1 where that does not
    pay; `remark` says why. `before` are the figures at temperature 1, `after` those of the bundle. `ece_by_chance` is
    the mean `ece_equal_mass` of probabilities that are exactly right, on so many rows: less cannot be told from it.
    """

    temperature: float
    remark: str
    fitted_rows: int
    n: int
    before: CalibrationFigures
    after: CalibrationFigures
    ece_by_chance: float
    bins_before: list[ReliabilityBin]
    bins: list[ReliabilityBin]


class AnsweredRows(msgspec.Struct, frozen=True, kw_only=True):
    """How many of `n` rows are answered and not unsure, and how many of those wrongly.

    `coverage` and `error` are shares, of all rows and of the answered ones, with exact (Clopper-Pearson) 95% intervals.
    """

    n: int
    answered: int
    wrong: int
    coverage: float
    coverage_ci95: list[float]
    error: float | None
    error_ci95: list[float] | None


class RiskPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What would be answered, and how much of that wrongly, if answers below `threshold` were unsure."""

    threshold: float
    coverage: float
    error: float


class OutOfScopeAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """How `n` texts that belong to no class are answered; `chosen_on` others helped to choose the threshold.

    `unsure` is the share that is rightly unsure, None where nothing is unsure; `auroc` the probability that a test row
    has a higher best probability than such a text.
    """

    source: str
    chosen_on: int
    n: int
    unsure: float | None
    unsure_ci95: list[float] | None
    auroc: float


class Abstention(msgspec.Struct, frozen=True, kw_only=True):
    """Which answers are unsure: those whose probability is below `abstain_below`, None where all are answered.

    `chosen_by` is the key that decided (abstain_below, max_error or out_of_scope), empty where none did, and `met`
    whether what was asked for holds; `remark` says how the threshold was chosen. `validation` are the rows that chose
    it, `test` those of the test part, and `curve` the risk-coverage curve of the test part, highest threshold first.
    """

    abstain_below: float | None
    chosen_by: str
    max_error: float | None
    met: bool
    remark: str
    validation: AnsweredRows | None
    test: AnsweredRows
    curve: list[RiskPoint]
    out_of_scope: OutOfScopeAnswers | None = None
