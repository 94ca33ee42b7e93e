"""Confidence in answers: the packed head gets its temperature and its threshold, and both are judged on the test part.

What is measured is the bundle as it is served, one input a run. The validation part settles the head, the test part
judges it; nothing is learnt from texts out of scope. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from edgetune.benchmarks.answer_recipe import AnswerRecipe
from edgetune.benchmarks.prove import abstention
from edgetune.benchmarks.prove.abstention import GRID, Confident
from edgetune.benchmarks.prove.calibration import (
    FittedTemperature,
    Scored,
    calibrated,
    calibration_figures,
    error_by_chance,
    fit_temperature,
    reliability,
)
from edgetune.benchmarks.prove.ledger import Logits
from edgetune.serve.bundle import HeadSpec
from edgetune.serve.heads import open_head
from edgetune.serve.report_confidence import Abstention, Calibration, OutOfScopeAnswers

# Of the validation rows where max_error chooses among them: those that fit the temperature and begin the search. The
# others are then rows on which nothing hangs but the test.
PILOT_SHARE = 0.25


@dataclass(frozen=True)
class OutsideAnswers:
    """Texts out of scope as they are answered, (texts, width) float32: those that choose, those that are reported."""

    source: str
    choosing: Logits
    reporting: Logits


@dataclass(frozen=True)
class Threshold:
    """The probability below which answers are unsure, None for none; which key chose it, on which rows, and how."""

    abstain_below: float | None
    chosen_by: str
    rows: Scored | None
    met: bool
    remark: str


@dataclass(frozen=True)
class SettledHead:
    """A head with its temperature and threshold, and what they were settled from."""

    spec: HeadSpec
    temperature: FittedTemperature
    threshold: Threshold
    outside: OutsideAnswers | None
    recipe: AnswerRecipe
    confidence: float
    seed: int

    def calibration(self, test: Scored) -> Calibration:
        """How far the probabilities are shares of right answers, on rows of the test part."""
        temperature = self.temperature.temperature
        before, after = (calibration_figures(test, each) for each in (1.0, temperature))
        answers = test.judged(temperature)
        worse = " On the test part it rises." if after.nll > before.nll else ""
        return Calibration(
            temperature=temperature,
            remark=self.temperature.remark + worse,
            fitted_rows=self.temperature.rows,
            n=len(test),
            before=before,
            after=after,
            ece_by_chance=error_by_chance(answers[0], self.seed),
            bins_before=reliability(*test.judged(1.0)),
            bins=reliability(*answers),
        )

    def abstention(self, test: Scored) -> Abstention | None:
        """What is answered of the test part, and how much of it wrongly; None of a head that is never unsure."""
        if self.spec.kind != "label":
            return None
        threshold, limit = self.threshold, self.recipe.max_error
        below, rows = threshold.abstain_below or 0.0, _confident(test, self.spec)
        answers = abstention.answered_rows(rows, below)
        met, remark = threshold.met, threshold.remark
        if met and limit is not None and abstention.surely_above(answers, limit, self.confidence):
            met = False
            remark += (
                f" On the test part {answers.wrong:,} of {answers.answered:,} answers are wrong, surely more than that."
            )
        chosen_on = threshold.rows
        return Abstention(
            abstain_below=threshold.abstain_below,
            chosen_by=threshold.chosen_by,
            max_error=limit,
            met=met,
            remark=remark,
            validation=abstention.answered_rows(_confident(chosen_on, self.spec), below) if chosen_on else None,
            test=answers,
            curve=abstention.risk_curve(rows),
            out_of_scope=self._outside(rows),
        )

    def _outside(self, rows: Confident) -> OutOfScopeAnswers | None:
        if self.outside is None:
            return None
        below, reporting = self.threshold.abstain_below, _best(self.outside.reporting, self.spec)
        unsure = 0 if below is None else int((reporting < below).sum())
        return OutOfScopeAnswers(
            source=self.outside.source,
            chosen_on=len(self.outside.choosing) if self.threshold.chosen_by != "abstain_below" else 0,
            n=len(reporting),
            unsure=None if below is None else unsure / len(reporting),
            unsure_ci95=None if below is None else abstention.exact_interval(unsure, len(reporting)),
            auroc=abstention.area_under_roc(rows.confidence, reporting),
        )


def settle_head(
    head: HeadSpec,
    validation: Scored,
    outside: OutsideAnswers | None,
    recipe: AnswerRecipe,
    confidence: float,
    seed: int,
) -> SettledHead | None:
    """Settle a head's temperature and threshold; None for a head whose answers have no probabilities.

    Args:
        head: of the tuned model.
        validation: its rows as the packed bundle answers them, one a run.
        outside: texts out of scope, answered likewise.
        recipe: what was asked for.
        confidence: with which `max_error` is to hold.
        seed: of the folds and of the pilot rows.
    """
    if head.kind not in ("label", "labels"):
        return None
    order = np.random.default_rng(seed).permutation(len(validation))
    pilot_rows = round(PILOT_SHARE * len(validation)) if recipe.max_error is not None else 0
    pilot, rest = validation.take(order[:pilot_rows]), validation.take(order[pilot_rows:])
    fitted = FittedTemperature(1.0, 0, "Not calibrated: answer.calibrate is off.")
    if recipe.calibrate:
        fitted = fit_temperature(pilot if pilot_rows else validation, seed)
    spec = calibrated(head, fitted.temperature)
    if not _same_decisions(head, spec, validation):  # a threshold that a probability lies on, to its last bit
        fitted = FittedTemperature(1.0, fitted.rows, "Not calibrated: it would change an answer by rounding.")
        spec = head
    threshold = Threshold(None, "", None, True, "Every text is answered: nothing was asked for that makes one unsure.")
    if spec.kind == "label":
        threshold = _threshold(spec, pilot, rest, outside, recipe, confidence)
    spec = msgspec.structs.replace(spec, abstain_below=threshold.abstain_below)
    return SettledHead(spec, fitted, threshold, outside, recipe, confidence, seed)


def _threshold(
    spec: HeadSpec,
    pilot: Scored,
    rows: Scored,
    outside: OutsideAnswers | None,
    recipe: AnswerRecipe,
    confidence: float,
) -> Threshold:
    """The threshold that the recipe gives or asks for; else the one that serves both sides, else none."""
    if recipe.abstain_below is not None:
        return Threshold(recipe.abstain_below, "abstain_below", rows, True, "Given as answer.abstain_below.")
    answers = _confident(rows, spec)
    allowed: Sequence[float] = GRID
    if recipe.max_error is not None:
        limit = recipe.max_error
        allowed = abstention.guaranteed_thresholds(answers, _confident(pilot, spec), limit, confidence)
        if not allowed:
            return Threshold(None, "max_error", rows, False, _unmet(answers, limit, confidence))
        if outside is None:
            holds = f"At most {limit:.4g} of the answers are wrong with {confidence:.4g} confidence"
            return Threshold(
                allowed[-1], "max_error", rows, True, f"{holds}, shown on {len(rows):,} validation rows of their own."
            )
    elif outside is None:
        return Threshold(None, "", None, True, "Every text is answered: nothing was asked for that makes one unsure.")
    chosen = abstention.balanced_threshold(answers, _best(outside.choosing, spec), allowed)
    among = (
        ""
        if recipe.max_error is None
        else f", among those at which at most {recipe.max_error:.4g} are wrong with {confidence:.4g} confidence"
    )
    return Threshold(
        chosen,
        "out_of_scope" if recipe.max_error is None else "max_error",
        rows,
        True,
        f"Where the mean of two shares is largest{among}: validation rows answered and right, and "
        f"{len(outside.choosing):,} out-of-scope texts unsure; half of the rows stay answered where possible.",
    )


def _unmet(answers: Confident, limit: float, confidence: float) -> str:
    """Why no threshold keeps to a limit, and what would help."""
    rows, needed = len(answers.right), abstention.fewest_rows(limit, confidence)
    start = f"No threshold keeps wrong answers within {limit:.4g} with {confidence:.4g} confidence"
    if rows < needed:
        return f"{start}: that takes at least {needed:,} validation rows for it, and there are {rows:,}."
    wrong = int((~answers.right).sum())
    return f"{start}: of {rows:,} validation rows {wrong:,} are answered wrongly, too many of them with confidence."


def _confident(rows: Scored, spec: HeadSpec) -> Confident:
    """Answers of a head of kind `label`, with the probabilities that are served."""
    return Confident(_best(rows.logits, spec), rows.logits.argmax(axis=1) == rows.expected)


def _best(logits: Logits, spec: HeadSpec) -> abstention.Floats:
    """The best probability of each row as it is served, (rows,) float64."""
    return open_head(spec).scores(logits).max(axis=1).astype(np.float64)


def _same_decisions(head: HeadSpec, settled: HeadSpec, rows: Scored) -> bool:
    return np.array_equal(open_head(head).decide(rows.logits), open_head(settled).decide(rows.logits))
