"""What counts as the head of each architecture, and what freezing leaves to train."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune.serve.errors import RecipeError
from edgetune.tune.methods import METHODS
from edgetune.tune.models.base import find_base
from edgetune.tune.models.classifier import head_linear, head_names
from edgetune.tune.models.model import start_model
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.activations import frozen_layers

LABELS = ("card", "cash", "login", "transfer")
HEADS = {
    "bert": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "roberta": ("classifier",),
    "electra": ("classifier",),
    "albert": ("classifier",),
    "mpnet": ("classifier",),
    "deberta_v2": ("pooler", "classifier"),
    "modernbert": ("head", "classifier"),
    "xlm_roberta": ("classifier",),
    "gpt2_classifier": ("classifier",),
    "qwen3_embedding": ("classifier",),
    "sentence_t5": ("classifier",),
}


@pytest.fixture
def start(tiny_base: Callable[[str], Path]) -> Callable[..., Any]:
    def open_start(name: str, **options: Any) -> Any:
        return start_model(
            find_base(str(tiny_base(name))),
            TASKS["text-classification"].objective(LABELS, "", ()),
            TuneRecipe(**options),
        )

    return open_start


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_all_that_stands_beside_the_trunk(start: Callable[..., Any], name: str) -> None:
    model = start(name)

    assert head_names(model) == HEADS[name]
    assert head_linear(model)[0].split(".")[0] == HEADS[name][-1]
    assert head_names(start(name, pooling="mean")) == ("classifier",)


@pytest.mark.parametrize("name", HEADS)
def test_lora_adapts_the_trunk_and_trains_the_head_whole(start: Callable[..., Any], name: str) -> None:
    recipe = TuneRecipe(method="lora")
    model = METHODS["lora"].prepare(start(name), recipe)

    trained = {weight_name for weight_name, weight in model.named_parameters() if weight.requires_grad}
    in_head = {weight for weight in trained if any(part in HEADS[name] for part in weight.split("."))}
    assert in_head
    assert all("modules_to_save" in weight for weight in in_head)
    assert all("lora_" in weight for weight in trained - in_head)
    assert trained - in_head


def test_freezing_trains_the_top_layer_the_pooler_behind_it_and_the_head(start: Callable[..., Any]) -> None:
    model = METHODS["freeze"].prepare(start("bert"), TuneRecipe(method="freeze"))

    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name.split(".")[1] for name in trained} == {"encoder", "pooler", "weight", "bias"}
    assert all(name.startswith("bert.encoder.layer.1.") for name in trained if "encoder" in name)


def test_freezing_leaves_debertas_relative_positions(start: Callable[..., Any]) -> None:
    model = METHODS["freeze"].prepare(start("deberta_v2"), TuneRecipe(method="freeze"))

    assert not model.deberta.encoder.rel_embeddings.weight.requires_grad
    assert model.pooler.dense.weight.requires_grad


def test_freezing_trains_alberts_one_shared_layer(start: Callable[..., Any]) -> None:
    model = METHODS["freeze"].prepare(start("albert"), TuneRecipe(method="freeze"))

    assert all(weight.requires_grad for weight in model.albert.encoder.albert_layer_groups.parameters())
    assert not model.albert.embeddings.word_embeddings.weight.requires_grad


@pytest.mark.parametrize("name", ["bert", "distilbert", "mpnet", "modernbert"])
def test_lora_in_the_top_layer_leaves_those_below(start: Callable[..., Any], name: str) -> None:
    model = METHODS["lora"].prepare(start(name), TuneRecipe(method="lora", lora={"top_layers": 1}))

    adapted = {weight for weight, tensor in model.named_parameters() if tensor.requires_grad and "lora_" in weight}
    top = max(int(number) for weight in adapted for number in re.findall(r"layers?\.(\d+)\.", weight))
    assert all(f".{top}." in weight or "pooler" in weight for weight in adapted)
    assert len(frozen_layers(model)) == top


def test_more_top_layers_than_there_are_is_refused(start: Callable[..., Any]) -> None:
    for method, settings in (("lora", {"lora": {"top_layers": 3}}), ("freeze", {"freeze": {"top_layers": 3}})):
        with pytest.raises(RecipeError, match=rf"tune\.{method}\.top_layers is 3, and the model has 2 layers"):
            METHODS[method].prepare(start("bert"), TuneRecipe(method=method, **settings))
