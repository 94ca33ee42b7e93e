"""What is handed on: the better on the validation part, and in words which and why."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edgetune.tune import tuning
from edgetune.tune.methods import METHODS
from edgetune.tune.metrics import ACCURACY
from edgetune.tune.models.base import find_base
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.training.outcome import choose, settled_by_probe
from edgetune.tune.training.progress import Silent


def test_auto_keeps_the_better_and_says_which():
    outcome = choose(METHODS["auto"], 0.915, 0.925, 1000)
    assert (outcome.handed_on, outcome.value, outcome.is_trained) == ("lora", 0.925, True)
    assert outcome.why == (
        "lora is handed on: 0.9250 against 0.9150 on the 1,000 validation rows, +1.00 points over the probe."
    )
    outcome = choose(METHODS["auto"], 0.915, 0.914, 1000)
    assert (outcome.handed_on, outcome.value, outcome.is_trained) == ("probe", 0.915, False)
    assert outcome.why == (
        "lora ended below the probe (0.9140 against 0.9150 on the 1,000 validation rows): the probe is handed on."
    )


def test_on_a_tie_auto_keeps_the_probe_and_a_method_named_by_the_user_is_kept():
    assert choose(METHODS["auto"], 0.9, 0.9, 10).handed_on == "probe"
    assert "gained nothing over the probe" in choose(METHODS["auto"], 0.9, 0.9, 10).why
    assert choose(METHODS["full"], 0.9, 0.9, 10).handed_on == "full"
    assert choose(METHODS["full"], 0.9, 0.8, 10).handed_on == "probe"


def test_training_is_spared_where_it_can_gain_nothing():
    assert settled_by_probe(METHODS["auto"], 0.999) is None
    assert settled_by_probe(METHODS["lora"], 1.0) is None
    settled = settled_by_probe(METHODS["auto"], 1.0)
    assert settled.handed_on == "probe"
    assert "nothing was trained" in settled.why
    assert settled_by_probe(METHODS["probe"], 0.5).handed_on == "probe"


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


def test_auto_hands_on_lora_where_it_gains(tuned):
    found = tuned(epochs=8, batch_size=8, learning_rate=5e-3, head_learning_rate=5e-3, patience=8)
    training = found.training
    assert training.probe_value < training.best_value
    assert (training.method, training.handed_on) == ("auto", "lora")
    assert training.best_value == max(point.validation_value for point in training.curve)
    why = f"lora is handed on: {training.best_value:.4f} against {training.probe_value:.4f} on the 15 validation rows"
    assert found.said[-1].startswith(why)
    assert training.remark.startswith(why)
    assert found.model.adapter_folder is not None
    assert "lora" not in (found.model.model_folder / "config.json").read_text(encoding="utf-8")


def test_auto_keeps_the_probe_where_lora_does_not_gain_and_stops_early(tuned):
    """With a rate that changes nothing no epoch gains over the first: patience 1 ends training after the second."""
    found = tuned(epochs=9, batch_size=8, learning_rate=1e-12, head_learning_rate=1e-12)
    training = found.training
    assert (training.method, training.handed_on, training.epochs) == ("auto", "probe", 2)
    assert training.best_value == training.probe_value
    assert found.said[-1].startswith("lora gained nothing over the probe (")
    assert training.remark.startswith(found.said[-1])
    assert found.model.adapter_folder is None
    for name in ("model.safetensors", "config.json"):
        assert (found.model.model_folder / name).read_bytes() == (found.model.base_folder / name).read_bytes()


def test_auto_trains_nothing_where_the_probe_is_perfect(tuned, monkeypatch):
    monkeypatch.setattr(tuning, "train", None)  # would fail if it were called
    perfect = replace(ACCURACY, value=lambda _: np.float64(1))
    monkeypatch.setattr(tuning.TASKS["text-classification"], "METRICS", {"accuracy": perfect})
    training = tuned().training
    assert (training.handed_on, training.curve, training.epochs) == ("probe", [], 0)
    assert training.remark == "The probe makes no mistake on the validation part; nothing was trained."
