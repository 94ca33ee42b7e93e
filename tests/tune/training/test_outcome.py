"""What is handed on: the better on the validation part, and in words which and why."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edgetune.tune import tuning
from edgetune.tune.methods import METHODS
from edgetune.tune.metrics import ACCURACY, MAE
from edgetune.tune.models.base import find_base
from edgetune.tune.models.classifier import head_linear
from edgetune.tune.models.model import open_model
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks.objective import Head
from edgetune.tune.tasks.text_classification import SingleLabel
from edgetune.tune.training import trunk_probe
from edgetune.tune.training.gain import Gain
from edgetune.tune.training.outcome import choose, settled_by_probe
from edgetune.tune.training.progress import Silent


def gain(value, error=0.002, rows=1000):
    return Gain(value, error, rows)


def test_auto_keeps_what_gains_more_than_its_standard_error_and_says_so():
    outcome = choose(METHODS["auto"], "layers", 0.915, 0.925, gain(0.01), ACCURACY)
    assert (outcome.handed_on, outcome.value, outcome.is_trained) == ("layers", 0.925, True)
    assert outcome.why == (
        "layers is handed on: 0.9250 against 0.9150 on the 1,000 validation rows, +1.00 points over the probe, "
        "standard error 0.20."
    )
    outcome = choose(METHODS["auto"], "lora", 0.915, 0.914, gain(-0.001), ACCURACY)
    assert (outcome.handed_on, outcome.value, outcome.is_trained) == ("probe", 0.915, False)
    assert outcome.why == (
        "lora did worse than the probe (0.9140 against 0.9150 on the 1,000 validation rows, -0.10 points over the "
        "probe, standard error 0.20): the probe is handed on."
    )


def test_of_what_cannot_be_told_apart_auto_hands_on_the_probe_and_a_method_named_by_the_user_is_kept():
    for value in (0.0, 0.004):
        outcome = choose(METHODS["auto"], "layers", 0.9, 0.9 + value, gain(value, error=0.005), ACCURACY)
        assert (outcome.handed_on, outcome.value) == ("probe", 0.9)
        assert "layers gained nothing beyond chance over the probe" in outcome.why
        assert choose(METHODS["full"], "full", 0.9, 0.9 + value, gain(value, 0.005), ACCURACY).handed_on == "full"
    assert choose(METHODS["full"], "full", 0.9, 0.899, gain(-0.001), ACCURACY).handed_on == "probe"


def test_the_gain_over_an_error_is_a_share_of_it():
    outcome = choose(METHODS["auto"], "layers", 2.0, 1.5, gain(0.25, 0.01), MAE)
    assert "+25.00 percent off the probe's mae, standard error 1.00" in outcome.why


def test_training_is_spared_where_it_can_gain_nothing():
    assert settled_by_probe(METHODS["auto"], 0.999, ACCURACY) is None
    assert settled_by_probe(METHODS["lora"], 1.0, ACCURACY) is None
    settled = settled_by_probe(METHODS["auto"], 1.0, ACCURACY)
    assert settled.handed_on == "probe"
    assert "nothing was trained" in settled.why
    assert settled_by_probe(METHODS["probe"], 0.5, ACCURACY).handed_on == "probe"


class Said(Silent):
    """Remembers."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def tuned(tiny_base, toy_dataset, tmp_path):
    """`tuned(epochs=1)`: the tuned model of a tiny base by `method: auto`, and what was said."""

    def run(**settings):
        said = Said()
        recipe = TuneRecipe(precision="fp32", **settings)
        assert recipe.method == "auto"
        where = {"task": "text-classification", "metric": "accuracy", "device": "cpu", "seed": 1}
        base = find_base(str(tiny_base("bert")))
        model = tuning.tune(toy_dataset(), base, recipe, folder=tmp_path / "tune", progress=said, **where)
        return SimpleNamespace(model=model, training=model.training, said=said.said)

    return run


@pytest.mark.parametrize("trained_by", ["layers", "lora"])
def test_auto_hands_on_what_gains(tuned, monkeypatch, trained_by):
    monkeypatch.setattr("edgetune.tune.methods.auto.settle", lambda model, device: trained_by)
    solve = trunk_probe.fit_probe

    def poor(*arguments, **options):  # whatever a tiny frozen trunk is good for
        probe = solve(*arguments, **options)
        return replace(probe, value=0.0, logits=-probe.logits)

    monkeypatch.setattr(trunk_probe, "fit_probe", poor)
    found = tuned(epochs=8, batch_size=8, learning_rate=5e-3, head_learning_rate=5e-3, patience=8)
    training = found.training
    assert training.probe_value < training.best_value
    assert (training.method, training.handed_on) == ("auto", trained_by)
    assert training.best_value >= max(point.validation_value for point in training.curve)
    values = f"{training.best_value:.4f} against {training.probe_value:.4f} on the 15 validation rows"
    assert found.said[-1].startswith(f"{trained_by} is handed on: {values}")
    assert training.remark.startswith(found.said[-1])
    assert (found.model.adapter_folder is not None) == (trained_by == "lora")
    assert "lora" not in (found.model.model_folder / "config.json").read_text(encoding="utf-8")
    tuned_weights, base_weights = (
        open_model(folder).get_input_embeddings().weight
        for folder in (found.model.model_folder, found.model.base_folder)
    )
    assert torch.equal(tuned_weights, base_weights)


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_the_head_that_is_solved_again_on_the_trained_layers_is_put_in_place_where_it_does_better(
    tuned, monkeypatch, value
):
    solve, solved = trunk_probe.fit_probe, []

    def watching(*arguments, **options):
        probe = solve(*arguments, **options)
        if solved:  # on the trained layers
            wide = probe.final.weight.shape
            probe = replace(
                probe,
                value=value,
                logits=np.eye(wide[0], dtype=np.float32)[arguments[1][1]],
                final=Head(np.full(wide, 0.25, np.float32), np.arange(wide[0], dtype=np.float32)),
            )
        solved.append(probe)
        return probe

    monkeypatch.setattr(trunk_probe, "fit_probe", watching)
    found = tuned(epochs=1, batch_size=8)
    assert len(solved) == 2
    head = head_linear(open_model(found.model.model_folder))[1]
    in_place = bool(torch.all(head.weight == 0.25)) and head.bias.tolist() == [0, 1, 2, 3]
    assert in_place is (value == 1.0)
    if in_place:
        assert (found.training.handed_on, found.training.best_value) == ("layers", 1.0)


def test_auto_keeps_the_probe_where_training_does_not_gain_and_stops_after_a_round(tuned):
    """With a rate that changes nothing no round gains over the probe: the first one, of five passes, is the last."""
    found = tuned(batch_size=8, learning_rate=1e-12, head_learning_rate=1e-12)
    training = found.training
    assert (training.method, training.handed_on, training.epochs) == ("auto", "probe", 5)
    assert training.best_value == training.probe_value
    assert "the probe" in found.said[-1]
    assert training.remark.startswith(found.said[-1])
    assert found.model.adapter_folder is None
    for name in ("model.safetensors", "config.json"):
        assert (found.model.model_folder / name).read_bytes() == (found.model.base_folder / name).read_bytes()


def test_auto_trains_nothing_where_the_probe_is_perfect(tuned, monkeypatch):
    monkeypatch.setattr(tuning, "train", None)  # would fail if it were called
    monkeypatch.setattr(SingleLabel, "value", lambda *_: 1.0)
    training = tuned().training
    assert (training.handed_on, training.curve, training.epochs) == ("probe", [], 0)
    assert training.remark == "The probe makes no mistake on the validation part; nothing was trained."
