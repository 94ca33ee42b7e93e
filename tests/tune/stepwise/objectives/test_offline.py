"""Objectives of judged answers: batches as TRL takes them, what the base thinks, and models that come to prefer."""

from __future__ import annotations

import math
import signal

import numpy as np
import pytest

from edgetune.serve.errors import DataError, Interrupted
from edgetune.tune.models.base import find_base
from edgetune.tune.stepwise.model import TunedLanguageModel, open_language_model, open_pretrained
from edgetune.tune.stepwise.objectives.offline import OFFLINE, collate_pairs, collate_votes
from edgetune.tune.stepwise.objectives.pairs import (
    PairNats,
    accuracy,
    measure_pairs,
    paired_votes,
    preference_loss,
    votes_of,
)
from edgetune.tune.stepwise.perplexity import measure_perplexity
from edgetune.tune.stepwise.recipe import AdapterRecipe, GenerationTuneRecipe
from edgetune.tune.stepwise.tuning import LanguageRows, tune_language_model
from edgetune.tune.training.progress import Silent

WHERE = {"device": "cpu", "seed": 3, "progress": Silent()}
SETTINGS = {
    "epochs": 2, "learning_rate": 1e-2, "precision": "fp32", "batch_size": 8,
    "adapter": AdapterRecipe(rank=4, alpha=8), "preference": {"answer_rows": 2, "answer_tokens": 4},
}  # fmt: skip


def pair(prompt, chosen, rejected):
    return {
        "input_ids": [*prompt, *chosen],
        "labels": [-100] * len(prompt) + chosen,
        "rejected_ids": [*prompt, *rejected],
        "rejected_labels": [-100] * len(prompt) + rejected,
    }


@pytest.fixture
def pairs():
    """The chosen answer counts up, the rejected one down."""

    def made(count, seed):
        drawn = np.random.default_rng(seed).integers(8, 16, count).tolist()
        return [pair([1, start], [start + 1, start + 2, 2], [start - 1, start - 2, start - 3, 2]) for start in drawn]

    return made


@pytest.fixture
def base(language_base):
    return find_base(str(language_base()))


def test_margins_are_of_the_chosen_answer_beyond_the_bases_own():
    base = PairNats(np.array([4.0, 4.0, 4.0]), np.array([6.0, 6.0, 6.0]))
    model = PairNats(np.array([3.0, 4.0, 5.0]), np.array([6.5, 6.0, 5.0]))
    margins = model.margins(base)
    assert margins.tolist() == [1.5, 0.0, -2.0]
    assert accuracy(margins) == 0.5  # right, a tie, wrong
    assert accuracy(base.margins(base)) == 0.5  # which TRL calls 0
    assert preference_loss(np.zeros(2), 0.1) == pytest.approx(math.log(2))
    assert preference_loss(np.array([3.0]), 0.5) == pytest.approx(math.log1p(math.exp(-1.5)))


def test_a_batch_of_pairs_has_the_chosen_above_the_rejected():
    rows = [pair([1, 5], [6, 2], [7, 8, 2]), pair([1], [9, 2], [4, 2])]
    batch = collate_pairs([{**row, "ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0} for row in rows])
    assert batch["input_ids"].tolist() == [[1, 5, 6, 2, 0], [1, 9, 2, 0, 0], [1, 5, 7, 8, 2], [1, 4, 2, 0, 0]]
    assert batch["attention_mask"].sum(dim=1).tolist() == [4, 3, 5, 3]
    assert batch["completion_mask"].tolist() == [[0, 0, 1, 1, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]
    assert batch["ref_rejected_logps"].tolist() == [-2.0, -2.0]


def test_votes_have_their_neighbours_answers_beside_them():
    rows = votes_of([pair([1, 5], [6, 2], [7, 2])])
    assert [(row["input_ids"], row["liked"]) for row in rows] == [([1, 5, 6, 2], [1]), ([1, 5, 7, 2], [0])]
    mixed = OFFLINE["kto"].rows([pair([1, 5], [6, 2], [7, 2]), pair([1], [8, 2], [9, 9, 2])], 2, 0)
    assert len(mixed) == 4
    for first in (0, 2):
        one, other = mixed[first : first + 2]
        assert one["mixed_labels"][-2:] == other["labels"][-2:]
        assert one["mixed_ids"][: one["labels"].count(-100)] == one["input_ids"][: one["labels"].count(-100)]
        batch = collate_votes([{**row, "ref_logps": -1.0, "ref_KL_logps": -3.0} for row in (one, other)])
        assert batch["label"].tolist() == [bool(row["liked"][0]) for row in (one, other)]
        assert batch["KL_input_ids"].shape == batch["KL_completion_mask"].shape
    assert len(OFFLINE["kto"].rows([pair([1], [5, 2], [6, 2])], 2, 0)) == 2


def test_a_vote_alone_in_its_batch_is_left_out():
    rows = [{"input_ids": [1, 5], "labels": [-100, 5], "liked": [place % 2]} for place in range(5)]
    assert len(OFFLINE["kto"].rows(rows, 2, 0)) == 4


def test_held_out_votes_become_pairs():
    votes = [{"input_ids": [1, n], "labels": [-100, n], "liked": [int(n < 7)]} for n in (5, 6, 7)]
    made, left = paired_votes(votes)
    assert (made, left) == ([pair([1], [5], [7])], 1)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "kto", "orpo"])
def test_a_model_comes_to_prefer(base, pairs, tmp_path, objective):
    rows = LanguageRows(pairs(48, 0), pairs(12, 1), pairs(12, 2))
    recipe = GenerationTuneRecipe(objective=objective, **SETTINGS)
    tuned = tune_language_model(rows, base, recipe, folder=tmp_path / "tune", **WHERE)
    assert {path.name for path in tuned.folder.iterdir()} == {
        "model", "adapter", "tuned.json", "base_perplexity.npz", "tuned_perplexity.npz",
        "base_validation_pairs.npz", "base_test_pairs.npz",
    }  # fmt: skip
    assert TunedLanguageModel.open(tuned.folder) == tuned
    before, after = tuned.objective.stages
    margins = measure_pairs(open_language_model(tuned.model_folder), rows.test).margins(tuned.base_pairs("test"))
    assert after.preference_accuracy == accuracy(margins)
    assert after.margin == pytest.approx(margins.mean(), abs=1e-3)
    assert (before.preference_accuracy, before.margin, before.kl) == (0.5, 0.0, None)
    assert after.kl > 0
    assert 1 <= after.answer_tokens <= 4
    # What the rows teach without exception is learnt: far from where it began, whatever the seed.
    assert min(point.validation_loss for point in tuned.training.curve) < math.log(2)
    assert tuned.training.remark.startswith("On 12 pairs it prefers the chosen answer more than the base does in ")
    assert tuned.training.settings["objective"] == objective


class Stopping(Silent):
    """Presses Ctrl-C after a training step."""

    def advance(self, done, total, note=""):
        if note.startswith("epoch") and done == 4:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_an_interrupted_objective_continues_with_what_the_base_thought(base, pairs, tmp_path):
    rows = LanguageRows(pairs(24, 0), pairs(8, 1))
    recipe = GenerationTuneRecipe(objective="dpo", method="full", **{**SETTINGS, "learning_rate": 1e-3})
    with pytest.raises(Interrupted, match="step 4"):
        tune_language_model(rows, base, recipe, folder=tmp_path, **{**WHERE, "progress": Stopping()})
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoints", "references.json", "base_perplexity.npz", "base_validation_pairs.npz"
    }  # fmt: skip
    references = (tmp_path / "references.json").read_text()
    nats = measure_perplexity(open_pretrained(base), rows.train).losses
    assert [-float(value) for value in references.split("[")[1].split("]")[0].split(",")] == pytest.approx(
        nats.tolist()
    )
    tuned = tune_language_model(rows, base, recipe, folder=tmp_path, **WHERE)
    assert (tuned.training.epochs, tuned.objective.pairs) == (2, 8)
    assert not (tmp_path / "references.json").exists()


def test_rows_without_judgements_are_refused(base, language_rows, tmp_path):
    rows = LanguageRows(language_rows(8), language_rows(8))
    with pytest.raises(DataError, match="learns of judged answers, and the encoded rows have none"):
        tune_language_model(rows, base, GenerationTuneRecipe(objective="dpo"), folder=tmp_path, **WHERE)
