"""Stored activations: the same losses and gradients as without, for every architecture, or a word why not."""

import pytest
import torch

from edgetune.tune.methods import METHODS
from edgetune.tune.models.base import find_base
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.model import start_model
from edgetune.tune.models.opening import open_base
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training import activations
from edgetune.tune.training.activations import ROW, frozen_layers, stored_activations
from edgetune.tune.training.progress import Silent

LABELLING = TASKS["text-classification"]

# Frozen layers of the tiny checkpoints when the top one is trained; ALBERT has one layer, used twice.
FROZEN = {
    "bert": 1, "distilbert": 1, "roberta": 1, "electra": 1, "albert": 0, "mpnet": 1, "deberta_v2": 1,
    "modernbert": 2, "xlm_roberta": 1, "gpt2_classifier": 1, "qwen3_embedding": 2,
}  # fmt: skip


class Said(Silent):
    """Remembers."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


# What speaks against it, by base: no answer is ever given from states that do not fit.
UNFIT = {"xlnet": "their states are not row by row", "sentence_t5": "stored, logits are off by"}


@pytest.fixture
def frozen(tiny_base, toy_dataset):
    """`frozen("bert")`: a model with its top layer to train, its tokenizer and ragged rows."""

    def prepared(name):
        torch.manual_seed(5)
        base = find_base(str(tiny_base(name)))
        recipe = TuneRecipe(method="freeze", freeze={"top_layers": 1})
        opened = open_base(base, LABELLING, LABELLING.objective(toy_dataset().labels, "", ()), recipe)
        tokenizer, model = opened.encoder.tokenizer, METHODS["freeze"].prepare(opened.model, recipe)
        rows = [{**row, "labels": 1} for row in Encoder(tokenizer, 96, LABELLING).rows(toy_dataset().train.texts[:24])]
        return model, tokenizer, rows

    return prepared


def gradients(model, batch):
    """Loss and gradients of a batch, without dropout."""
    model.eval().zero_grad()
    loss = torch.nn.functional.cross_entropy(model(**batch).logits, torch.ones(len(batch["input_ids"]), dtype=int))
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("name", FROZEN)
def test_stored_activations_change_neither_loss_nor_gradients(frozen, name):
    model, tokenizer, rows = frozen(name)
    layers = frozen_layers(model)
    assert len(layers) == FROZEN[name]
    chosen = [0, 5, 11, 23]
    picked = [{key: value for key, value in rows[row].items() if key != "labels"} for row in chosen]
    batch = dict(tokenizer.pad(picked, return_tensors="pt"))
    assert not batch["attention_mask"].all()
    loss, expected = gradients(model, batch)
    said, calls = Said(), []
    hooks = [part.register_forward_hook(lambda *_: calls.append(1)) for layer in layers for part in layer.children()]
    with stored_activations(model, tokenizer, rows, bf16=False, pass_tokens=64, progress=said) as stored:
        assert said.said == []
        if name == "albert":
            assert stored is None
            return
        calls.clear()
        found_loss, found = gradients(model, stored.enter({**batch, ROW: torch.tensor(chosen)}))
        assert calls == []  # nothing inside the frozen layers ran
    assert hooks
    assert float(found_loss) == pytest.approx(float(loss), abs=1e-5)
    assert found.keys() == expected.keys()
    for weight, gradient in expected.items():
        assert torch.allclose(found[weight], gradient, rtol=1e-3, atol=1e-5), weight
    again, _ = gradients(model, batch)  # behind the block the layers run again
    assert calls
    assert float(again) == pytest.approx(float(loss), abs=1e-6)


@pytest.mark.parametrize("name", UNFIT)
def test_states_that_do_not_fit_are_not_stored(frozen, name):
    model, tokenizer, rows = frozen(name)
    said = Said()
    # A fresh head gives zero for all rows, whatever the states are.
    torch.nn.init.normal_(model.classifier.weight)
    with stored_activations(model, tokenizer, rows, bf16=False, pass_tokens=64, progress=said) as stored:
        assert stored is None
    assert len(said.said) == 1
    assert UNFIT[name] in said.said[0]


def test_half_precision_states_take_two_bytes_and_stay_close(frozen):
    model, tokenizer, rows = frozen("bert")
    with stored_activations(model, tokenizer, rows, bf16=True, pass_tokens=64, progress=Silent()) as stored:
        assert stored.states.dtype == torch.bfloat16
        assert tuple(stored.states.shape) == (sum(len(row["input_ids"]) for row in rows), 32)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_without_a_frozen_layer_nothing_is_stored(tiny_base, toy_dataset, method):
    base = find_base(str(tiny_base("bert")))
    recipe = TuneRecipe(method=method)
    model = METHODS[method].prepare(
        start_model(base, TASKS["text-classification"].objective(toy_dataset().labels, "", ()), recipe), recipe
    )
    assert frozen_layers(model) == []
    with stored_activations(model, None, [], bf16=False, pass_tokens=64, progress=Silent()) as stored:
        assert stored is None


def test_states_that_would_take_too_much_memory_are_not_stored(frozen, monkeypatch):
    model, tokenizer, rows = frozen("bert")
    monkeypatch.setattr(activations, "usable_memory_bytes", lambda: 1_000)
    said = Said()
    with stored_activations(model, tokenizer, rows, bf16=False, pass_tokens=64, progress=said) as stored:
        assert stored is None
    assert len(said.said) == 1
    assert said.said[0].startswith("the frozen layers are run anew in each epoch: their states would take ")


def test_several_processes_run_the_layers_anew(frozen, monkeypatch):
    model, tokenizer, rows = frozen("bert")
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = Said()
    with stored_activations(model, tokenizer, rows, bf16=False, pass_tokens=64, progress=said) as stored:
        assert stored is None
    assert said.said == ["the frozen layers are run anew in each epoch: several processes train"]


def test_a_layer_whose_output_is_changed_behind_it_is_seen(frozen):
    """As in DeBERTa-v2's larger checkpoints, whose encoder sends the first layer's output through a convolution."""
    model, tokenizer, rows = frozen("bert")
    layer = model.bert.encoder.layer[0]
    layer.register_forward_hook(lambda _, __, output: output * 3)
    said = Said()
    with stored_activations(model, tokenizer, rows, bf16=False, pass_tokens=64, progress=said) as stored:
        assert stored is None
        assert "forward" not in vars(layer)
    assert said.said[0].startswith("the frozen layers are run anew in each epoch: stored, logits are off by ")
