"""ByteDropout: drops at its rate, keeps the mean, follows torch's seed, and does nothing outside of training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgetune.tune.models.base import find_base
from edgetune.tune.models.classifier import head_linear
from edgetune.tune.models.dropout import ByteDropout, quicken_dropout, remove_dropout
from edgetune.tune.models.model import start_model
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_values_are_dropped_at_the_rate_and_the_others_scaled_to_the_same_mean(rate):
    torch.manual_seed(0)
    layer = ByteDropout(rate)
    assert layer.p == pytest.approx(rate, abs=1 / 512)
    found = layer(torch.ones(1000, 300))
    assert found.unique().tolist() == [0.0, pytest.approx(1 / (1 - layer.p))]
    # 300,000 draws: five standard errors of the share are below half a point.
    assert (found == 0).float().mean().item() == pytest.approx(layer.p, abs=0.005)
    assert found.mean().item() == pytest.approx(1, abs=0.01)


def test_the_same_seed_drops_the_same_values_and_the_next_call_others():
    layer, ones = ByteDropout(0.5), torch.ones(64, 64)
    torch.manual_seed(3)
    first, second = layer(ones), layer(ones)
    torch.manual_seed(3)
    assert torch.equal(layer(ones), first)
    assert not torch.equal(first, second)


def test_gradients_pass_where_values_were_kept():
    torch.manual_seed(0)
    inputs = torch.ones(8, 8, requires_grad=True)
    outputs = ByteDropout(0.5)(inputs)
    outputs.sum().backward()
    assert torch.equal(inputs.grad, outputs.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outside_of_training_and_at_rate_zero_nothing_changes(dtype):
    inputs = torch.randn(4, 4).to(dtype)
    assert ByteDropout(0.5).eval()(inputs) is inputs
    assert ByteDropout(0.0)(inputs) is inputs
    assert ByteDropout(0.5)(inputs).dtype is dtype


def test_every_dropout_of_a_model_is_replaced_and_its_weights_stay():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.25), nn.ModuleDict({"inside": nn.Dropout(0.1)}))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quicken_dropout(model)
    assert [type(module) for module in (model[1], model[2]["inside"])] == [ByteDropout, ByteDropout]
    assert model[1].p == 0.25
    assert model.state_dict().keys() == before.keys()


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_without_dropout_training_answers_as_evaluation_does(tiny_base, kind):
    base = find_base(str(tiny_base(kind)))
    objective = TASKS["text-classification"].objective("abcd", "", ())
    model = start_model(base, objective, TuneRecipe(method="layers"))
    _, head = head_linear(model)
    torch.nn.init.normal_(head.weight)
    inputs = {"input_ids": torch.arange(5, 13).reshape(2, 4), "attention_mask": torch.ones(2, 4, dtype=torch.int64)}
    expected = model.eval()(**inputs).logits
    remove_dropout(model)
    assert torch.allclose(model.train()(**inputs).logits, expected, atol=1e-5)
