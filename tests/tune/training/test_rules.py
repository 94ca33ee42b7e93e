"""The learning rate of each weight, and what changes gradients: all known by hand."""

import pytest
import torch
from pydantic import ValidationError

from edgetune.tune.methods import METHODS
from edgetune.tune.models.base import find_base
from edgetune.tune.models.classifier import head_names
from edgetune.tune.models.model import start_model
from edgetune.tune.recipe import AdapterRecipe, FreezeRecipe, TuneRecipe
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.gradients import GradualThawing, OrthogonalAdapters, StartAnchor
from edgetune.tune.training.rates import Rates

LAYER = "bert.encoder.layer.{}.attention.self.query.weight"


@pytest.fixture
def prepared(tiny_base):
    """`prepared(method)`: a tiny BERT of two layers, marked by the method, and its head's names."""

    def make(method, **settings):
        recipe = TuneRecipe(method=method, **settings)
        objective = TASKS["text-classification"].objective(("a", "b"), "", ())
        model = start_model(find_base(str(tiny_base("bert"))), objective, recipe)
        return METHODS[method].prepare(model, recipe), head_names(model)

    return make


def give_gradients(model, value=0.0):
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.full_like(weight, value)


def test_the_rate_falls_from_layer_to_layer_below_the_top(prepared):
    model, head = prepared("full")
    rates = Rates(1e-3, 1e-2, head, layer_decay=0.5).of_weights(model)
    assert rates["classifier.weight"] == 1e-2
    assert rates["bert.pooler.dense.weight"] == 1e-3  # behind the layers
    assert rates[LAYER.format(1)] == 1e-3
    assert rates[LAYER.format(0)] == 5e-4
    assert rates["bert.embeddings.word_embeddings.weight"] == 2.5e-4
    assert set(rates) == {name for name, _ in model.named_parameters()}
    assert set(Rates(1e-3, 1e-2, head).of_weights(model).values()) == {1e-3, 1e-2}


def test_the_second_factor_of_adapters_has_a_rate_of_its_own(prepared):
    model, head = prepared("loraplus", lora=AdapterRecipe(rank=2))
    ratio = METHODS["loraplus"].rate_ratio(TuneRecipe(method="loraplus"))
    assert ratio == 16
    assert METHODS["loraplus"].rate_ratio(TuneRecipe(method="loraplus", lora=AdapterRecipe(rate_ratio=4))) == 4
    rates = Rates(1e-4, 1e-3, head, ratio=ratio, layer_decay=0.5).of_weights(model)
    of_kind = {
        kind: {rate for name, rate in rates.items() if kind in name and "layer.0" in name}
        for kind in ("lora_A", "lora_B")
    }
    assert of_kind == {"lora_A": {0.5e-4}, "lora_B": {8e-4}}
    assert {rate for name, rate in rates.items() if "classifier" in name} == {1e-3}


def test_anchored_weights_do_not_decay(prepared):
    model, head = prepared("full")
    anchored = {LAYER.format(0)}
    decayed = {LAYER.format(0), LAYER.format(1)}
    optimizer = Rates(1e-3, 1e-2, head).optimizer(model, weight_decay=0.1, decayed=decayed, anchored=anchored)
    names = {id(weight): name for name, weight in model.named_parameters()}
    decay = {names[id(w)]: group["weight_decay"] for group in optimizer.param_groups for w in group["params"]}
    assert [name for name, value in decay.items() if value] == [LAYER.format(1)]
    assert set(decay) == set(names.values())


def test_l2_sp_and_ewc_add_the_gradient_of_the_way_from_the_start(prepared):
    model, head = prepared("full")
    anchor = StartAnchor(model, 0.5, outside=head)
    weight = model.get_parameter(LAYER.format(0))
    importance = torch.zeros_like(weight)
    importance[0, 0] = 4.0
    weighed = StartAnchor(model, 0.5, outside=head, importance={LAYER.format(0): importance})
    with torch.no_grad():
        weight[0, 0] += 2.0
        weight[1, 1] -= 3.0
        model.classifier.weight += 7.0
    give_gradients(model, 1.0)
    anchor.apply(model, 0)
    # 2 x 0.5 x the way, added to the gradient of 1
    assert weight.grad[0, 0] == pytest.approx(3.0)
    assert weight.grad[1, 1] == pytest.approx(-2.0)
    assert torch.equal(model.classifier.weight.grad, torch.ones_like(model.classifier.weight))  # a head has no start
    give_gradients(model)
    weighed.apply(model, 0)
    assert weight.grad[0, 0] == pytest.approx(8.0)  # importance 4
    assert weight.grad.count_nonzero() == 1
    assert set(weighed.anchors) == {LAYER.format(0)}


def test_layers_thaw_from_the_top_one_each_epoch(prepared):
    model, _ = prepared("freeze", freeze=FreezeRecipe(top_layers=2, gradual=True))
    thawing = GradualThawing(model)
    for epoch, left in ((0.0, {"1"}), (0.9, {"1"}), (1.0, {"0", "1"}), (5.0, {"0", "1"})):
        give_gradients(model, 1.0)
        thawing.apply(model, epoch)
        with_gradient = {name for name, weight in model.named_parameters() if weight.grad is not None}
        assert {name.split(".")[3] for name in with_gradient if ".layer." in name} == left
        assert {"classifier.weight", "bert.pooler.dense.weight"} <= with_gradient


def test_the_gradient_of_orthogonality_is_that_of_its_loss(prepared):
    model, _ = prepared("adalora", lora=AdapterRecipe(rank=2))
    factors = {name: weight for name, weight in model.named_parameters() if "lora_A" in name or "lora_B" in name}
    give_gradients(model)
    OrthogonalAdapters(0.5).apply(model, 0)
    loss = 0.0
    for name, weight in factors.items():
        rows = weight if "lora_A" in name else weight.T
        loss = loss + torch.norm(rows @ rows.T - torch.eye(len(rows)), p="fro")
    gradients = torch.autograd.grad(0.5 * loss / len(factors), list(factors.values()))
    for gradient, weight in zip(gradients, factors.values(), strict=True):
        assert torch.allclose(weight.grad, gradient, atol=1e-6)


def test_what_has_no_start_to_stay_near_is_refused():
    for kind, method in ((TuneRecipe, "lora"), (TuneRecipe, "auto"), (GenerationTuneRecipe, "qlora")):
        with pytest.raises(ValidationError, match=f"l2_sp is 0.1, and method {method} does not train the pretrained"):
            kind(method=method, l2_sp=0.1)
    assert TuneRecipe(method="freeze", l2_sp=0.1).l2_sp == 0.1
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        TuneRecipe(layer_decay=1.5)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TuneRecipe(method="full", l2_sp=-1)
