"""Training: what it decides by itself, and that a run which was stopped ends as one which was not."""

import json
import signal

import numpy as np
import pytest
import torch

from edgetune.serve.errors import Interrupted, OutOfMemory
from edgetune.tune.methods import METHODS
from edgetune.tune.models.base import find_base, open_tokenizer
from edgetune.tune.models.classifier import head_names
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import start_model
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.batches import labelled
from edgetune.tune.training.checkpoints import last_whole_checkpoint
from edgetune.tune.training.progress import Silent
from edgetune.tune.training.trainer import HeadTrainer, TrainingPlan, train

LABELLING = TASKS["text-classification"]


def test_class_weights_are_one_on_average_over_the_rows():
    weights = TASKS["text-classification"].objective("ab", "", ()).weights([0, 0, 0, 1])
    assert weights == pytest.approx((4 / (2 * 3), 4 / (2 * 1)))
    assert (3 * weights[0] + weights[1]) / 4 == 1
    assert TASKS["text-classification"].objective("ab", "", ()).weights([0, 0]) == (0.5, 1.0)


class Stopping(Silent):
    """Presses Ctrl-C after a step, and remembers what was said and which steps were taken."""

    def __init__(self, after=None, times=1):
        self.after, self.times, self.said, self.steps = after, times, [], []

    def say(self, text):
        self.said.append(text)

    def advance(self, done, total, note=""):
        if not note.startswith("epoch"):
            return  # the frozen layers' pass, before the first step
        self.steps.append(done)
        if done == self.after:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.fixture
def trained(tiny_base, toy_dataset, tmp_path):
    """`trained(folder, progress)` trains a fresh tiny model and returns it with the result."""
    dataset = toy_dataset()
    base = find_base(str(tiny_base("bert")))
    tokenizer = open_tokenizer(base)

    def rows(part):
        return labelled(Encoder(tokenizer, 32, LABELLING).rows(part.texts), np.asarray(part.targets))

    def run(name, progress, method="full", weights=None, rate=1e-3, pass_tokens=1024, round_epochs=0, **settings):
        torch.manual_seed(0)
        recipe = TuneRecipe(method=method, **{"batch_size": 16, "patience": 9, **settings})
        model = start_model(base, TASKS["text-classification"].objective(dataset.labels, "", ()), recipe)
        head = head_names(model)
        model = METHODS[method].prepare(model, recipe)
        plan = TrainingPlan(
            method=method, epochs=recipe.epochs, round_epochs=round_epochs,
            trunk_rate=rate, head_rate=10 * rate, head=head, bf16=False, device="cpu",
            seed=3, class_weights=weights, pass_tokens=pass_tokens, patience=recipe.patience,
        )  # fmt: skip
        parts = (rows(dataset.train), rows(dataset.validation))
        where = {"folder": tmp_path / name, "progress": progress}
        return model, train(
            model,
            Encoder(tokenizer, 32, LABELLING),
            *parts,
            TASKS["text-classification"].objective(dataset.labels, "", ()),
            recipe=recipe,
            plan=plan,
            reference=np.zeros(len(dataset.validation), dtype=np.int64),
            **where,
        )

    run.tokenizer = tokenizer
    return run


def values(result):
    return [(point.epoch, point.train_loss, point.validation_loss, point.validation_value) for point in result.curve]


@pytest.mark.parametrize("method", ["full", "lora", "freeze"])
def test_a_stopped_training_continues_at_its_step_and_ends_as_if_it_had_not_been_stopped(trained, tmp_path, method):
    through, whole = trained("whole", Stopping(), method=method, epochs=4)
    stopping = Stopping(after=7)
    with pytest.raises(Interrupted, match="Training was stopped at step 7; its checkpoint is kept"):
        trained("stopped", stopping, method=method, epochs=4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    continuing = Stopping()
    model, result = trained("stopped", continuing, method=method, epochs=4)
    assert continuing.said[0] == "training continues from checkpoint-7"
    assert continuing.steps[0] == 8
    assert [point.epoch for point in result.curve] == [1, 2, 3, 4]
    for found, expected in zip(values(result), values(whole), strict=True):
        # The training loss of the epoch that was stopped is a mean over what was left of it.
        assert found[2:] == pytest.approx(expected[2:], abs=1e-4)
    for (name, weight), other in zip(model.named_parameters(), through.parameters(), strict=True):
        assert torch.allclose(weight, other, atol=1e-4), name


def test_a_second_ctrl_c_stops_at_once(trained):
    with pytest.raises(KeyboardInterrupt):
        trained("stopped", Stopping(after=2, times=2), epochs=2)


def test_a_checkpoint_cut_short_is_removed_and_the_one_before_it_taken(trained, tmp_path):
    folder = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        trained("stopped", Stopping(after=7), epochs=4)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["checkpoint-5", "checkpoint-7", "logits-1.0000.npy"]
    (folder / "checkpoint-7" / "trainer_state.json").write_text('{"epoch": 1', encoding="utf-8")
    (folder / "checkpoint-9").mkdir()
    assert last_whole_checkpoint(folder) == folder / "checkpoint-5"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-5", "logits-1.0000.npy"]
    continuing = Stopping()
    trained("stopped", continuing, epochs=4)
    assert continuing.steps[0] == 6
    assert last_whole_checkpoint(tmp_path / "nowhere") is None


def test_patience_goes_on_where_it_was(trained, tmp_path):
    """With a rate that changes nothing no epoch gains after the first: patience 3 ends training after the fourth."""
    settings = {"epochs": 9, "patience": 3, "rate": 1e-12}
    _, whole = trained("whole", Stopping(), **settings)
    assert whole.epochs == 4
    with pytest.raises(Interrupted):
        trained("stopped", Stopping(after=13), **settings)
    _, result = trained("stopped", Stopping(), **settings)
    assert (result.epochs, result.best_epoch, len(result.curve)) == (4, 1, 4)


def test_a_stop_at_the_last_step_of_an_epoch_keeps_its_evaluation(trained):
    with pytest.raises(Interrupted):
        trained("stopped", Stopping(after=10), epochs=4)
    continuing = Stopping()
    _, result = trained("stopped", continuing, epochs=4)
    assert continuing.steps[0] == 11
    assert [point.epoch for point in result.curve] == [1, 2, 3, 4]


def test_a_stop_during_an_evaluation_ends_at_the_next_step(trained):
    class Judged(Stopping):
        def say(self, text):
            super().say(text)
            if text.startswith("epoch 2:"):
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="at step 11;"):
        trained("stopped", Judged(), epochs=4)
    continuing = Stopping()
    _, result = trained("stopped", continuing, epochs=4)
    assert (continuing.said[0], continuing.steps[0]) == ("training continues from checkpoint-11", 12)
    assert [point.epoch for point in result.curve] == [1, 2, 3, 4]


def test_a_stop_at_the_very_last_step_leaves_nothing_to_train(trained):
    with pytest.raises(Interrupted):
        trained("stopped", Stopping(after=10), epochs=2)
    continuing = Stopping()
    _, result = trained("stopped", continuing, epochs=2)
    assert continuing.steps == []
    assert [point.epoch for point in result.curve] == [1, 2]


def test_the_best_epoch_is_the_one_that_is_kept(trained):
    _, result = trained("whole", Stopping(), epochs=5)
    assert result.best_value == max(point.validation_value for point in result.curve)
    assert result.epochs == 5


def test_head_and_trunk_have_learning_rates_of_their_own_and_norms_do_not_decay(trained, monkeypatch):
    seen = {}
    making = HeadTrainer.create_optimizer

    def watching(self, model=None):
        optimizer = making(self, model)
        seen.update(optimizer=optimizer, names={id(w): name for name, w in self.model.named_parameters()})
        return optimizer

    monkeypatch.setattr(HeadTrainer, "create_optimizer", watching)
    trained("whole", Stopping(), epochs=1, weight_decay=0.1)
    rates = {}
    for group in seen["optimizer"].param_groups:
        for weight in group["params"]:
            rates[seen["names"][id(weight)]] = (group["initial_lr"], group["weight_decay"])
    assert rates["classifier.weight"] == (1e-2, 0.1)
    assert rates["classifier.bias"] == (1e-2, 0.0)
    assert rates["bert.encoder.layer.0.attention.self.query.weight"] == (1e-3, 0.1)
    assert rates["bert.encoder.layer.0.attention.output.LayerNorm.weight"] == (1e-3, 0.0)
    assert set(rates) == set(seen["names"].values())


def test_class_weights_reach_the_loss(trained):
    _, plain = trained("plain", Stopping(), epochs=1)
    _, weighted = trained("weighted", Stopping(), epochs=1, weights=(0.0, 0.0, 0.0, 0.0))
    assert plain.curve[0].train_loss > 0.1
    assert weighted.curve[0].train_loss == 0


def test_labelled_rows():
    rows = labelled([{"input_ids": [1]}, {"input_ids": [2]}], np.array([1, 0]))
    assert rows == [{"input_ids": [1], "labels": 1}, {"input_ids": [2], "labels": 0}]
    assert json.dumps(rows)


@pytest.mark.parametrize(
    ("settings", "remedies"),
    [
        (
            {"method": "full"},
            "tune.pass_tokens (now 1,024), the tokens that go through the model at once; tune.max_tokens (the longest "
            "row has 23); tune.method: lora, which keeps no optimizer states of the frozen weights; tune.method: "
            "probe, which trains the head alone",
        ),
        (
            {"method": "lora", "pass_tokens": 4},
            "tune.max_tokens (the longest row has 23); tune.lora.top_layers, which is all; tune.method: probe, which "
            "trains the head alone",
        ),
    ],
)
def test_memory_that_runs_out_is_said_with_what_to_lower(trained, monkeypatch, settings, remedies):
    def greedy(self, *arguments):
        torch.empty(1 << 55)

    monkeypatch.setattr(HeadTrainer, "training_step", greedy)
    with pytest.raises(OutOfMemory) as told:
        trained("run", Stopping(), epochs=1, **settings)
    assert told.value.found.startswith("Training ran out of memory on cpu: ")
    assert told.value.action == f"change one of these, the first first: {remedies}"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_rounds_end_without_a_significant_gain_over_what_stood_before(trained, tmp_path):
    """With a rate that changes nothing the first round answers as the reference does: patience 1 ends training there,
    and patience 2 after the second, also where it was stopped between."""
    settings = {"epochs": 6, "round_epochs": 2, "rate": 1e-12}
    _, result = trained("first", Stopping(), patience=1, **settings)
    assert (result.epochs, len(result.curve)) == (2, 2)
    assert np.array_equal(result.best_logits.argmax(axis=1), np.zeros(15))
    with pytest.raises(Interrupted):
        trained("second", Stopping(after=13), patience=2, **settings)
    _, result = trained("second", Stopping(), patience=2, **settings)
    assert (result.epochs, len(result.curve)) == (4, 4)
    names = {path.name for path in (tmp_path / "second").glob("logits-*")}
    assert names == {f"logits-{epoch}.0000.npy" for epoch in (1, 2, 3, 4)}


def test_the_rates_rise_and_fall_in_each_round(trained, monkeypatch):
    rates, stepping = [], HeadTrainer.training_step

    def watching(self, *arguments):
        rates.append(self.lr_scheduler.get_last_lr()[-1])
        return stepping(self, *arguments)

    monkeypatch.setattr(HeadTrainer, "training_step", watching)
    trained("rounds", Stopping(), epochs=4, round_epochs=2, patience=9, warmup=0.2, schedule="linear")
    assert len(rates) == 20
    assert rates[:10] == rates[10:]
    assert rates[:10] == pytest.approx(
        [1e-3 * share for share in (0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8)]
    )


def test_the_best_logits_are_those_of_the_best_epoch_in_the_order_of_the_rows(trained, toy_dataset):
    model, result = trained("whole", Stopping(), epochs=3)
    validation = toy_dataset().validation
    tokenizer = trained.tokenizer
    logits = model_logits(model, Encoder(tokenizer, 32, LABELLING), validation.texts)
    assert np.allclose(result.best_logits, logits, atol=1e-5)
    assert result.best_value == np.mean(logits.argmax(axis=1) == np.asarray(validation.targets))
