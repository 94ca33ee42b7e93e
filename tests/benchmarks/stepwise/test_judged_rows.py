"""Judged pairs: the margins of a candidate by hand, and a gate that keeps preferences beside perplexity."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.benchmarks.stepwise.divergence import Divergence, TextScore
from edgetune.benchmarks.stepwise.judged_rows import JudgedPairs, JudgedRows, Margins
from edgetune.benchmarks.stepwise.ladder import judge_divergence
from edgetune.benchmarks.stepwise.recipe import GenerationGateRecipe
from edgetune.tune.metrics import PERPLEXITY, PREFERENCE_ACCURACY
from edgetune.tune.stepwise.objectives.pairs import PairNats

ROWS = [
    {"input_ids": [1, n], "labels": [-100, n], "rejected_ids": [1, 9, n], "rejected_labels": [-100, 9, n]}
    for n in range(5, 9)
]


def scores(reference, candidate):
    pairs = zip(reference, candidate, strict=True)
    return Divergence(tuple(TextScore(1, 0.0, 1, one, other, 1, 1) for one, other in pairs))


def test_margins_are_of_the_candidates_own_log_probabilities_beyond_the_bases():
    base = PairNats(np.array([2.0, 2, 2, 2]), np.array([3.0, 3, 3, 3]))  # which prefers the chosen ones by a nat
    pairs = JudgedPairs.of(ROWS, base, 10, 0)
    assert pairs.rejected == JudgedRows(tuple((1, 9, n) for n in range(5, 9)), tuple((-100, 9, n) for n in range(5, 9)))
    found = pairs.margins(scores([1.0] * 4, [1.0] * 4), scores([4.0] * 4, [4.0, 2.0, 1.5, 2.5]))
    assert found.reference.tolist() == [2.0] * 4
    assert found.candidate.tolist() == [2.0, 0.0, -0.5, 0.5]
    assert found.accuracy == 0.5  # a tie is not preferred


def test_the_same_rows_are_drawn_whether_all_or_the_drawn_ones_were_measured():
    every = PairNats(np.arange(4.0), np.zeros(4))
    drawn = JudgedPairs.of(ROWS, every, 2, 7)
    ids = JudgedRows.of(ROWS, 2, 7).ids
    assert [row[2] for row in drawn.rejected.ids] == [row[1] for row in ids]
    places = [row[1] - 5 for row in ids]
    assert drawn.base.tolist() == [-float(place) for place in places]
    measured = PairNats(every.chosen[places], every.rejected[places])
    assert JudgedPairs.of(ROWS, measured, 2, 7).base.tolist() == drawn.base.tolist()
    assert JudgedPairs.of(ROWS, None, 2, 7) is None


def test_a_candidate_that_keeps_perplexity_and_loses_preferences_is_refused():
    rng = np.random.default_rng(0)
    nats = 1 + rng.random(200)
    kept = scores(nats, nats * (1 + 1e-4 * rng.random(200)))
    tuned, turned = np.ones(200), np.where(np.arange(200) < 60, -1.0, 1.0)
    gate = GenerationGateRecipe()
    assert judge_divergence(kept, gate).gate == "pass"
    verdict = judge_divergence(kept, gate, margins=Margins(tuned, turned))
    assert (verdict.gate, verdict.accepted) == ("fail", False)
    assert (verdict.second.metric, verdict.second.value) == ("preference_accuracy", 0.7)
    assert verdict.second.drop == pytest.approx(0.3)
    assert "preference_accuracy drop +30.00 points" in verdict.reason
    assert judge_divergence(kept, gate, margins=Margins(tuned, tuned)).gate == "pass"


def test_the_terms_of_preferences_stand_in_a_report_where_they_are_judged():
    gate = GenerationGateRecipe(max_preference_drop=0.1)
    assert "max_preference_drop" not in gate.as_used(PERPLEXITY)
    used = gate.as_used(PERPLEXITY, PREFERENCE_ACCURACY)
    assert (used["max_preference_drop"], used["second_metric"]) == (0.1, "preference_accuracy")
    assert gate.of_preferences.max_drop == 0.1
