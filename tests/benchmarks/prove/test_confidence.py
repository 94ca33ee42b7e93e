"""How a packed head is settled, from rows whose probabilities are known."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.benchmarks.answer_recipe import AnswerRecipe
from edgetune.benchmarks.prove.calibration import Scored
from edgetune.benchmarks.prove.confidence import OutsideAnswers, SettledHead, settle_head
from edgetune.serve.bundle import HeadSpec
from edgetune.serve.heads import open_head

HEAD = HeadSpec(kind="label", labels=["a", "b", "c"])


def rows(count: int, *, sure: float, seed: int, heat: float = 2.0) -> Scored:
    """A share `sure` of rows that are right with 99%, the others with 50%; logits are `heat` times too large."""
    random = np.random.default_rng(seed)
    right = np.where(random.random(count) < sure, 0.99, 0.5)
    best = random.integers(0, 3, count)
    probabilities = np.repeat((1 - right[:, None]) / 2, 3, axis=1)
    probabilities[np.arange(count), best] = right
    expected = np.array([random.choice(3, p=row) for row in probabilities])
    return Scored((heat * np.log(probabilities)).astype(np.float32), expected)


def settled(recipe: AnswerRecipe, *, validation: Scored | None = None, outside: bool = False) -> SettledHead:
    texts = OutsideAnswers("o.txt", np.zeros((50, 3), np.float32), np.zeros((40, 3), np.float32)) if outside else None
    part = rows(2000, sure=0.8, seed=1) if validation is None else validation
    made = settle_head(HEAD, part, texts, recipe, 0.95, seed=0)
    assert made is not None
    return made


TEST = rows(3000, sure=0.8, seed=2)


def test_the_head_is_calibrated_and_answers_all():
    made = settled(AnswerRecipe())
    assert made.spec.temperature == pytest.approx(2.0, rel=0.1)
    assert made.spec.abstain_below is None
    calibration, abstention = made.calibration(TEST), made.abstention(TEST)
    assert calibration.after.ece_equal_mass < 0.5 * calibration.before.ece_equal_mass
    assert calibration.after.nll < calibration.before.nll
    assert (abstention.test.answered, abstention.validation, abstention.out_of_scope) == (3000, None, None)


def test_a_share_of_wrong_answers_leaves_the_unsure_half_unanswered():
    made = settled(AnswerRecipe(max_error=0.05))
    assert 0.5 < made.spec.abstain_below <= 0.99
    abstention = made.abstention(TEST)
    assert abstention.met
    assert abstention.test.coverage == pytest.approx(0.8, abs=0.03)
    assert abstention.test.error < 0.02
    assert (made.temperature.rows, abstention.validation.n) == (500, 1500)


def test_what_cannot_be_shown_is_not_met():
    few = settled(AnswerRecipe(max_error=0.02), validation=rows(100, sure=1.0, seed=3))
    abstention = few.abstention(TEST)
    assert (abstention.met, abstention.abstain_below, abstention.chosen_by) == (False, None, "max_error")
    assert "takes at least 149 validation rows for it, and there are 75" in abstention.remark
    bad = settled(AnswerRecipe(max_error=0.02), validation=rows(2000, sure=0.0, seed=3))
    assert "are answered wrongly, too many of them" in bad.abstention(TEST).remark


def test_what_the_test_part_disproves_is_not_met():
    made = settled(AnswerRecipe(max_error=0.05))
    assert made.abstention(TEST).met
    worse = Scored(TEST.logits, (TEST.logits.argmax(axis=1) + 1) % 3)
    told = made.abstention(worse)
    assert not told.met
    assert "answers are wrong, surely more than that" in told.remark


def test_a_given_probability_is_taken_and_shown():
    made = settled(AnswerRecipe(abstain_below=0.7), outside=True)
    assert made.spec.abstain_below == 0.7
    abstention = made.abstention(TEST)
    assert abstention.test.coverage == pytest.approx(0.8, abs=0.03)
    assert (abstention.out_of_scope.unsure, abstention.out_of_scope.chosen_on, abstention.out_of_scope.n) == (1, 0, 40)


def test_texts_out_of_scope_choose_among_what_holds():
    alone = settled(AnswerRecipe(), outside=True)
    assert 1 / 3 < alone.spec.abstain_below < 0.5  # above what is known of them, below every row
    told = alone.abstention(TEST)
    assert (told.chosen_by, told.out_of_scope.unsure, told.out_of_scope.chosen_on) == ("out_of_scope", 1.0, 50)
    assert told.out_of_scope.auroc == 1.0
    both = settled(AnswerRecipe(max_error=0.05), outside=True)
    assert both.spec.abstain_below > 0.45
    assert both.abstention(TEST).chosen_by == "max_error"
    unsaid = both.abstention(TEST).remark
    assert "among those at which at most 0.05 are wrong" in unsaid


def test_several_labels_are_calibrated_and_never_unsure_and_numbers_neither():
    random = np.random.default_rng(0)
    logits = random.normal(scale=2, size=(800, 3)).astype(np.float32)
    expected = random.random((800, 3)) < 1 / (1 + np.exp(-logits))
    head = HeadSpec(kind="labels", labels=["a", "b", "c"], thresholds=[0.3, 0.5, 0.8])
    part = Scored(logits * 3, expected)
    made = settle_head(head, part, None, AnswerRecipe(), 0.95, seed=0)
    assert made.spec.temperature == pytest.approx(3.0, rel=0.15)
    assert np.array_equal(open_head(made.spec).decide(part.logits), open_head(head).decide(part.logits))
    assert made.abstention(part) is None
    assert made.calibration(part).after.nll < made.calibration(part).before.nll
    assert settle_head(HeadSpec(kind="number"), part, None, AnswerRecipe(), 0.95, seed=0) is None


@pytest.mark.parametrize("count", [1, 2, 5])
def test_hardly_any_rows(count):
    for recipe in (AnswerRecipe(), AnswerRecipe(max_error=0.1), AnswerRecipe(abstain_below=0.5)):
        made = settled(recipe, validation=rows(count, sure=1.0, seed=5), outside=True)
        assert made.spec.temperature == 1.0
        assert made.abstention(TEST).met is (recipe.max_error is None)
