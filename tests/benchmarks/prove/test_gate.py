"""The gate: pass, fail and inconclusive, and what the recipe makes of the last."""

import numpy as np
import pytest

from edgetune.benchmarks.prove.gate import judge
from edgetune.benchmarks.recipe import GateRecipe


def verdict(rows, lost, gained=0, **recipe):
    """Judge a candidate that loses and gains so many of `rows` answers against a reference that is right elsewhere."""
    expected = np.zeros(rows, dtype=np.int64)
    reference, candidate = expected.copy(), expected.copy()
    candidate[:lost] = 1
    reference[lost : lost + gained] = 1
    return judge(expected, reference, candidate, GateRecipe(**recipe))


def test_pass_where_the_whole_interval_is_within_the_limit():
    found = verdict(4000, 10, 2)
    assert (found.gate, found.accepted, found.rows_needed) == ("pass", True, None)
    assert found.drop.drop == pytest.approx(0.002)
    assert found.reason.startswith("accuracy drop +0.20 points, 95% interval ")
    assert found.reason.endswith(", allowed 1.00")


def test_fail_where_the_whole_interval_is_above_it():
    found = verdict(1000, 60)
    assert (found.gate, found.accepted) == ("fail", False)
    assert found.drop.interval[0] > 0.01


@pytest.mark.parametrize(("policy", "accepted"), [("accept", True), ("reject", False)])
def test_too_few_rows_are_inconclusive_and_the_recipe_decides(policy, accepted):
    found = verdict(50, 0, when_inconclusive=policy)
    assert (found.gate, found.accepted, found.rows_needed) == ("inconclusive", accepted, 381)
    assert "50 rows cannot settle it, about 381 would" in found.reason
    assert f"(gate.when_inconclusive: {policy})" in found.reason


def test_so_many_rows_as_it_asked_for_settle_it():
    assert verdict(381, 0).gate == "pass"
    assert verdict(380, 0).gate == "inconclusive"


def test_a_measured_drop_above_the_limit_is_rejected_whatever_the_recipe_says():
    found = verdict(50, 1, when_inconclusive="accept")
    assert (found.gate, found.accepted) == ("inconclusive", False)
    assert found.reason.endswith("; rejected, since the measured drop itself is above the limit")


def test_a_better_candidate_passes():
    found = verdict(500, 0, 20)
    assert (found.gate, found.accepted) == ("pass", True)
    assert found.drop.drop == pytest.approx(-0.04)


def test_a_drop_at_the_very_limit_says_of_no_number_of_rows_that_it_would_do():
    found = verdict(100, 1)
    assert (found.gate, found.accepted, found.rows_needed) == ("inconclusive", True, None)
    assert "would" not in found.reason


def test_no_drop_at_all_is_allowed_and_none_is_measured():
    found = verdict(1000, 0, max_drop=0)
    assert (found.gate, found.accepted, found.rows_needed) == ("inconclusive", True, None)


def test_a_lower_confidence_settles_sooner():
    assert verdict(300, 0).gate == "inconclusive"
    assert verdict(300, 0, confidence=0.9).gate == "pass"
