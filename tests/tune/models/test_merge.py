"""Merging with weights set by hand: the answer is known, and a lost head never passes."""

import numpy as np
import pytest
import torch

from edgetune.serve.errors import MergeError, RecipeError
from edgetune.tune.methods import METHODS
from edgetune.tune.methods.adapters import ADAPTERS
from edgetune.tune.models import merge
from edgetune.tune.models.base import find_base, open_tokenizer
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.merge import merge_and_save
from edgetune.tune.models.model import open_model, start_model
from edgetune.tune.recipe import AdapterRecipe, TuneRecipe
from edgetune.tune.tasks import TASKS

LABELLING = TASKS["text-classification"]

TEXTS = ("where is my card", "the machine kept my cash and nobody answers on the phone", "login")
LAYER = "encoder.layer.1.attention.self.query"


@pytest.fixture(params=["head", "mean"])
def adapted(request, tiny_base):
    """A model with LoRA adapters that are zero but for a few entries, and its tokenizer; for both kinds of head."""
    base = find_base(str(tiny_base("bert")))
    recipe = TuneRecipe(method="lora", pooling=request.param, lora=AdapterRecipe(rank=2, alpha=6, dropout=0.5))
    model = METHODS["lora"].prepare(
        start_model(base, TASKS["text-classification"].objective(("a", "b", "c"), "", ()), recipe), recipe
    )
    query = layer_of(model)
    with torch.no_grad():
        query.lora_A["default"].weight.zero_()[0, 5] = 0.5
        query.lora_A["default"].weight[1, 7] = -1.0
        query.lora_B["default"].weight.zero_()[3, 0] = 0.25
        query.lora_B["default"].weight[4, 1] = 2.0
        for name, weight in model.named_parameters():
            if "classifier.modules_to_save" in name:
                weight.copy_(torch.linspace(-1, 1, weight.numel()).reshape(weight.shape))
    return model, open_tokenizer(base)


def layer_of(model):
    return next(module for name, module in model.named_modules() if name.endswith(LAYER))


def test_the_merged_weight_is_w_plus_scale_b_a(adapted, tmp_path):
    model, tokenizer = adapted
    before = layer_of(model).base_layer.weight.detach().clone()
    head = {name: weight.detach().clone() for name, weight in model.named_parameters() if "modules_to_save" in name}
    difference = merge_and_save(model, Encoder(tokenizer, 32, LABELLING), TEXTS, tmp_path)
    assert 0 <= difference < 1e-4
    merged = open_model(tmp_path)
    # The scale is alpha / rank = 3: row 3 gains 3 * 0.25 * 0.5 in column 5, row 4 gains 3 * 2 * -1 in column 7.
    by_hand = torch.zeros_like(before)
    by_hand[3, 5], by_hand[4, 7] = 0.375, -6.0
    assert torch.allclose(layer_of(merged).weight - before, by_hand, atol=1e-6)
    assert torch.equal(layer_of(merged).weight, before + by_hand)
    classifier = next(
        weight for name, weight in head.items() if name.endswith("classifier.modules_to_save.default.weight")
    )
    assert torch.equal(merged.classifier.weight, classifier)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]


@pytest.mark.parametrize("method", ADAPTERS)
def test_every_kind_of_adapter_answers_alike_adapted_saved_merged_and_reopened(tiny_base, tmp_path, method):
    base = find_base(str(tiny_base("bert")))
    recipe = TuneRecipe(method=method, lora=AdapterRecipe(rank=2, alpha=6, dropout=0.5))
    plain = start_model(base, LABELLING.objective(("a", "b", "c"), "", ()), recipe)
    encoder = Encoder(open_tokenizer(base), 32, LABELLING)
    merge_and_save(plain, encoder, TEXTS, tmp_path / "base")
    started = model_logits(plain, encoder, TEXTS)
    torch.manual_seed(1)
    model = METHODS[method].prepare(plain, recipe)
    assert np.allclose(model_logits(model.eval(), encoder, TEXTS), started, atol=1e-4)  # adapters start as nothing
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.1)
    before = model_logits(model.eval(), encoder, TEXTS)
    folders = {"base": tmp_path / "base", "adapter": tmp_path / "adapter"}
    assert merge_and_save(model, encoder, TEXTS, tmp_path / "model", **folders) < 1e-4
    assert np.abs(before - started).max() > 0.01
    assert np.allclose(model_logits(open_model(tmp_path / "model"), encoder, TEXTS), before, atol=1e-4)
    with_adapters = open_model(tmp_path / "base", adapter=tmp_path / "adapter")
    assert np.allclose(model_logits(with_adapters, encoder, TEXTS), before, atol=1e-4)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    plain_names = {name for name, _ in open_model(tmp_path / "base").named_parameters()}
    assert {name for name, _ in open_model(tmp_path / "model").named_parameters()} == plain_names


def test_adapters_that_are_saved_as_others_are_an_error(tiny_base, tmp_path, monkeypatch):
    base = find_base(str(tiny_base("bert")))
    recipe = TuneRecipe(method="lora")
    plain = start_model(base, LABELLING.objective(("a", "b"), "", ()), recipe)
    encoder = Encoder(open_tokenizer(base), 32, LABELLING)
    merge_and_save(plain, encoder, TEXTS, tmp_path / "base")
    model = METHODS["lora"].prepare(plain, recipe)
    with torch.no_grad():
        layer_of(model).lora_B["default"].weight.normal_()
    saving = type(model).save_pretrained

    def forgetful(self, folder):
        with torch.no_grad():
            layer_of(self).lora_B["default"].weight.neg_()
            saving(self, folder)
            layer_of(self).lora_B["default"].weight.neg_()

    monkeypatch.setattr(type(model), "save_pretrained", forgetful)
    folders = {"base": tmp_path / "base", "adapter": tmp_path / "adapter"}
    with pytest.raises(MergeError, match="After opening the saved adapters the model answers differently"):
        merge_and_save(model, encoder, TEXTS, tmp_path / "model", **folders)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("method", "settings", "fault"),
    [
        (
            "lora",
            {"targets": ("query", "qv")},
            "tune.lora.targets names 'qv', and no linear layer of the model ends so",
        ),
        ("ia3", {"rate_ratio": 4}, "rate_ratio is 4, and ia3 has no second factor that could learn faster"),
        ("vera", {"top_layers": 9}, "tune.lora.top_layers is 9, and the model has 2 layers"),
    ],
)
def test_adapters_that_a_model_cannot_have_are_refused(tiny_base, method, settings, fault):
    recipe = TuneRecipe(method=method, lora=AdapterRecipe(**settings))
    model = start_model(find_base(str(tiny_base("bert"))), LABELLING.objective(("a", "b"), "", ()), recipe)
    with pytest.raises(RecipeError, match=fault):
        METHODS[method].prepare(model, recipe)


def test_targets_and_rank_are_free(tiny_base):
    recipe = TuneRecipe(method="dora", lora=AdapterRecipe(targets=("query", "value"), rank=3, top_layers=1))
    model = start_model(find_base(str(tiny_base("bert"))), LABELLING.objective(("a", "b"), "", ()), recipe)
    adapted = METHODS["dora"].prepare(model, recipe)
    shapes = {name.split(".lora_A")[0]: weight.shape for name, weight in adapted.named_parameters() if "lora_A" in name}
    layer = "base_model.model.bert.encoder.layer.1.attention.self"
    assert shapes == {f"{layer}.query": (3, 32), f"{layer}.value": (3, 32)}


def test_all_other_weights_stay_as_they_were(adapted, tmp_path):
    model, tokenizer = adapted
    before = {
        name.replace("base_layer.", "").removeprefix("base_model.model."): weight.detach().clone()
        for name, weight in model.named_parameters()
        if "lora" not in name and "classifier" not in name and LAYER not in name
    }
    merge_and_save(model, Encoder(tokenizer, 32, LABELLING), TEXTS, tmp_path)
    after = dict(open_model(tmp_path).named_parameters())
    assert before
    assert [name for name, weight in before.items() if not torch.equal(after[name], weight)] == []


def test_a_head_that_is_lost_on_saving_is_an_error(adapted, tmp_path, monkeypatch):
    model, tokenizer = adapted

    def forgetful(folder):
        opened = open_model(folder)
        torch.nn.init.normal_(opened.classifier.weight)
        return opened

    monkeypatch.setattr(merge, "open_model", forgetful)
    with pytest.raises(MergeError, match=r"The trained head was lost: classifier\.weight differ in the saved model"):
        merge_and_save(model, Encoder(tokenizer, 32, LABELLING), TEXTS, tmp_path)


def test_a_head_that_is_lost_on_merging_is_an_error(adapted, tmp_path, monkeypatch):
    model, tokenizer = adapted
    merging = type(model.base_model).merge_and_unload

    def forgetful(self, *arguments, **options):
        merged = merging(self, *arguments, **options)
        torch.nn.init.normal_(merged.classifier.weight)
        return merged

    monkeypatch.setattr(type(model.base_model), "merge_and_unload", forgetful)
    with pytest.raises(MergeError, match="After merging the model answers differently: logits are off by up to"):
        merge_and_save(model, Encoder(tokenizer, 32, LABELLING), TEXTS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_was_never_trained_is_an_error(tiny_base, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = find_base(str(tiny_base("bert")))
    started = start_model(base, TASKS["text-classification"].objective(("a", "b", "c"), "", ()), TuneRecipe())
    # As the usual recipe on the web has it: without modules_to_save and without a task type.
    model = get_peft_model(started, LoraConfig(r=2, target_modules=["query"]))
    with pytest.raises(MergeError, match="The adapted model holds no trained classifier"):
        merge_and_save(model, Encoder(open_tokenizer(base), 32, LABELLING), TEXTS, tmp_path)


def test_logits_that_are_no_numbers_are_an_error(adapted, tmp_path):
    model, tokenizer = adapted
    with torch.no_grad():
        layer_of(model).lora_B["default"].weight[4, 1] = float("nan")
    with pytest.raises(MergeError, match="off by up to nan"):
        merge_and_save(model, Encoder(tokenizer, 32, LABELLING), TEXTS, tmp_path)


def test_a_model_without_adapters_is_saved_as_it_is(tiny_base, tmp_path):
    base = find_base(str(tiny_base("bert")))
    model = start_model(base, TASKS["text-classification"].objective(("a", "b"), "", ()), TuneRecipe())
    weight = model.classifier.weight.detach().clone()
    assert merge_and_save(model, Encoder(open_tokenizer(base), 32, LABELLING), TEXTS, tmp_path) == 0
    assert torch.equal(open_model(tmp_path).classifier.weight, weight)
