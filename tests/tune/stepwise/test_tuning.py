"""The tune stage of a language model: what it leaves in its folder, and what it refuses."""

import csv
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from edgetune.serve.errors import DataError, Interrupted, ModelError, WorkError
from edgetune.serve.report import CurvePoint
from edgetune.tune.models.base import find_base
from edgetune.tune.stepwise import tuning
from edgetune.tune.stepwise.model import TunedLanguageModel, open_language_model, open_pretrained
from edgetune.tune.stepwise.packing import pack
from edgetune.tune.stepwise.perplexity import Perplexity, measure_perplexity
from edgetune.tune.stepwise.recipe import AdapterRecipe, GenerationTuneRecipe
from edgetune.tune.stepwise.tuning import LanguageRows, remark_on_tuning, tune_language_model
from edgetune.tune.training.progress import Silent

WHERE = {"device": "cpu", "seed": 3, "progress": Silent()}
RECIPE = GenerationTuneRecipe(
    epochs=2, learning_rate=1e-2, precision="fp32", adapter=AdapterRecipe(rank=4, alpha=8), batch_size=8
)


@pytest.fixture
def base(language_base):
    return find_base(str(language_base()))


@pytest.fixture
def rows(language_rows):
    return LanguageRows(language_rows(48), language_rows(16, seed=1), language_rows(16, seed=2))


def test_the_stage_leaves_a_standard_folder_and_its_facts(base, rows, tmp_path):
    tuned = tune_language_model(rows, base, RECIPE, folder=tmp_path / "tune", **WHERE)
    assert {path.name for path in tuned.folder.iterdir()} == {
        "model", "adapter", "tuned.json", "base_perplexity.npz", "tuned_perplexity.npz",
    }  # fmt: skip
    assert TunedLanguageModel.open(tuned.folder) == tuned
    assert (tuned.base_id, tuned.base_digest, tuned.measured_on) == (base.id, base.digest, "test")
    assert 0 <= tuned.merge_max_abs_diff < 1e-4
    before, after = tuned.base_perplexity, tuned.tuned_perplexity
    assert (tuned.base.perplexity, tuned.tuned.perplexity) == (before.value, after.value)
    assert after.value < 0.7 * before.value
    assert before.tokens.tolist() == after.tokens.tolist() == [len(row["labels"]) - 2 for row in rows.test]
    reopened = measure_perplexity(open_language_model(tuned.model_folder), rows.test)
    assert reopened.losses == pytest.approx(after.losses, abs=1e-4)
    started = measure_perplexity(open_pretrained(base), rows.test)
    assert started.losses == pytest.approx(before.losses, abs=1e-4)
    assert (tuned.training.method, tuned.training.epochs, len(tuned.training.curve)) == ("lora", 2, 2)
    assert tuned.training.settings["learning_rate"] == 1e-2
    assert tuned.training.remark.startswith("The perplexity fell from ")
    assert tuned.adapter_folder == tuned.folder / "adapter"


def test_config_generation_config_and_chat_template_are_the_bases(base, rows, tmp_path):
    tuned = tune_language_model(rows, base, RECIPE, folder=tmp_path, **WHERE)
    for name in ("config.json", "generation_config.json", "chat_template.jinja"):
        before, after = ((folder / name).read_text(encoding="utf-8") for folder in (base.folder, tuned.model_folder))
        assert after == before, name


def test_without_a_test_part_validation_is_measured_and_full_leaves_no_adapter(base, rows, tmp_path):
    recipe = GenerationTuneRecipe(method="full", epochs=1, learning_rate=3e-3, precision="fp32")
    tuned = tune_language_model(
        LanguageRows(rows.train, rows.validation), base, recipe, folder=tmp_path / "tune", **WHERE
    )
    assert (tuned.measured_on, tuned.tuned.rows, tuned.adapter_folder) == ("validation", 16, None)
    assert tuned.tuned.loss == pytest.approx(tuned.training.curve[0].validation_loss, abs=1e-5)


class Stopping(Silent):
    """Presses Ctrl-C after a training step, and remembers what was said."""

    def __init__(self, after=None):
        self.after, self.said = after, []

    def say(self, text):
        self.said.append(text)

    def advance(self, done, total, note=""):
        if note.startswith("epoch") and done == self.after:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_stage_continues_with_the_same_call(base, rows, tmp_path):
    with pytest.raises(Interrupted, match="step 4"):
        tune_language_model(rows, base, RECIPE, folder=tmp_path, **{**WHERE, "progress": Stopping(after=4)})
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "base_perplexity.npz"}
    continuing = Stopping()
    tuned = tune_language_model(rows, base, RECIPE, folder=tmp_path, **{**WHERE, "progress": continuing})
    assert continuing.said[0] == "training continues from checkpoint-4"  # and the base is not measured again
    assert tuned.training.epochs == 2
    assert not (tmp_path / "checkpoints").exists()


def test_packed_rows_are_learnt_and_a_model_that_mixes_them_is_refused(base, rows, tmp_path, monkeypatch):
    packed = LanguageRows(pack(rows.train, 32), rows.validation, rows.test)
    assert len(packed.train) < len(rows.train) / 2
    recipe = RECIPE.model_copy(update={"batch_size": 2})
    tuned = tune_language_model(packed, base, recipe, folder=tmp_path / "packed", **WHERE)
    assert tuned.tuned.perplexity < 0.7 * tuned.base.perplexity
    assert tuned.training.settings["train_rows"] == len(packed.train)

    def mixes(model, rows):
        raise ModelError(f"{len(rows)} rows see each other.")

    monkeypatch.setattr(tuning, "check_packing", mixes)
    with pytest.raises(ModelError, match="4 rows see each other"):
        tune_language_model(packed, base, recipe, folder=tmp_path / "mixed", **WHERE)


def test_rows_that_cannot_be_learnt_from_are_listed(base, language_rows, tmp_path):
    good = language_rows(4)
    bad = [
        {"input_ids": [1, 64], "labels": [-100, 64]},
        {"input_ids": [1, 5, 6], "labels": [-100, 5]},
        {"input_ids": [1, -3], "labels": [-100, 2]},
    ]
    silent = [{"input_ids": [1, 5], "labels": [-100, -100]}]
    with pytest.raises(DataError) as told:
        tune_language_model(LanguageRows(good + bad, silent), base, RECIPE, folder=tmp_path, **WHERE)
    assert told.value.found.splitlines() == [
        "The encoded rows cannot be learnt from:",
        "training row 4: an id outside the vocabulary: 64",
        "training row 5: 3 ids and 2 labels",
        "training row 6: an id outside the vocabulary: -3",
        "the validation part has no answer token to learn or to measure",
    ]
    assert told.value.expected.startswith("ids of 0 to 63, a label for each")
    with pytest.raises(DataError, match="the training part has no answer token"):
        tune_language_model(LanguageRows([], good), base, RECIPE, folder=tmp_path, **WHERE)


def test_perplexity_by_hand(tmp_path):
    found = Perplexity(np.array([2.0, 4.0]), np.array([1, 3]), np.array([1, 1]))
    assert (found.loss, found.token_accuracy) == (1.5, 0.5)
    assert found.value == pytest.approx(np.exp(1.5))
    found.save(tmp_path / "sums.npz")
    again = Perplexity.load(tmp_path / "sums.npz")
    assert (again.losses.tolist(), again.tokens.tolist(), again.hits.tolist()) == ([2, 4], [1, 3], [1, 1])


def test_logits_that_are_no_numbers_are_said(base, language_rows):
    model = open_pretrained(base)
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="logits that are no numbers: 3 of 3 rows, first row 0"):
        measure_perplexity(model, language_rows(3))
    with pytest.raises(DataError, match="None of the 1 rows has an answer token"):
        measure_perplexity(open_pretrained(base), [{"input_ids": [1, 5], "labels": [-100, -100]}])


def _curve(*losses):
    return [
        CurvePoint(epoch=number, train_loss=None, validation_loss=loss, validation_value=0.5)
        for number, loss in enumerate(losses, 1)
    ]


def test_remarks_on_a_tuning():
    before, after = (Perplexity(np.array([loss]), np.array([1]), np.array([0])) for loss in (3.0, 2.0))
    assert remark_on_tuning(_curve(2.0, 1.99), before, after) == "The perplexity fell from 20.09 to 7.389 on 1 rows."
    assert "Underfitting: the last epoch still" in remark_on_tuning(_curve(2.5, 2.0), before, after)
    assert (
        "Overfitting after epoch 2: the validation loss rose from 2.000 to 2.500; the best epoch"
        in remark_on_tuning(_curve(2.2, 2.0, 2.5), before, after)
    )
    assert remark_on_tuning(_curve(2.0), after, before).startswith(
        "Tuning gained nothing: perplexity 20.09 against the base's 7.389 on 1 rows"
    )


def test_a_folder_without_facts_is_said(tmp_path):
    with pytest.raises(WorkError, match="holds no tuned model"):
        TunedLanguageModel.open(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif("EDGETUNE_DATA" not in os.environ, reason="the data folder is not here (EDGETUNE_DATA)")
def test_the_real_stories_model_learns_what_customers_ask(tmp_path):
    from transformers import AutoTokenizer

    data = Path(os.environ["EDGETUNE_DATA"])
    folder = data / "models" / "stories260K-llama"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with (data / "text_en" / "banking77" / "train.csv").open(encoding="utf-8", newline="") as stream:
        texts = [row["text"].strip() for row in csv.DictReader(stream)][::10][:500]
    encoded = []
    for text in texts:
        ids = [1, *tokenizer(text, add_special_tokens=False)["input_ids"], 2]
        encoded.append({"input_ids": ids, "labels": [-100, *ids[1:]]})
    rows = LanguageRows(encoded[:400], encoded[400:450], encoded[450:])
    recipe = GenerationTuneRecipe(epochs=1, precision="fp32")
    tuned = tune_language_model(rows, find_base(str(folder)), recipe, folder=tmp_path, **WHERE)
    assert tuned.base.perplexity > 50
    assert tuned.tuned.perplexity < 0.4 * tuned.base.perplexity
    assert json.loads((tuned.model_folder / "config.json").read_text(encoding="utf-8"))["use_cache"] is True
