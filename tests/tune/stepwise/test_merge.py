"""Merging a language model with weights set by hand: the answer is known, and a wrong merge never passes."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig

from edgetune.serve.errors import MergeError
from edgetune.tune.models.base import find_base, open_tokenizer
from edgetune.tune.stepwise import merge
from edgetune.tune.stepwise.merge import merge_language_model
from edgetune.tune.stepwise.methods import METHODS
from edgetune.tune.stepwise.model import mend_generation_config, open_language_model, open_pretrained
from edgetune.tune.stepwise.qlora import dequantized, open_quantized, quantized_layers
from edgetune.tune.stepwise.recipe import AdapterRecipe, GenerationTuneRecipe, QloraRecipe
from edgetune.tune.training.progress import Silent

ADAPTERS = [name for name, method in METHODS.items() if method.has_adapters]
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}


@pytest.fixture
def adapted(language_base):
    """`adapted(method, kind)`: a model whose adapters were moved at random, its base and its tokenizer."""

    def make(method, kind="llama", weights="nf4", tied=True):
        base = find_base(str(language_base(kind, tied)))
        recipe = GenerationTuneRecipe(
            method=method, adapter=AdapterRecipe(rank=2, alpha=6, dropout=0.5), qlora=QloraRecipe(weights=weights)
        )
        if method == "qlora":
            model = open_quantized(base, recipe, device="cpu", bf16=False, progress=Silent())
        else:
            model = open_pretrained(base)
        torch.manual_seed(1)
        model = METHODS[method].prepare(model, recipe)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight), alpha=0.1)
        return model, base, open_tokenizer(base)

    return make


def logits(model, rows):
    with torch.inference_mode():
        return [model.eval()(input_ids=torch.tensor([row["input_ids"]])).logits for row in rows]


def largest_difference(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("gpt2", True)])
@pytest.mark.parametrize("method", ADAPTERS)
def test_the_folder_answers_as_the_adapted_model_did(adapted, language_rows, tmp_path, method, kind, tied):
    model, base, tokenizer = adapted(method, kind, tied=tied)
    rows = language_rows(6)
    before, started = logits(model, rows), logits(open_pretrained(base), rows)
    difference = merge_language_model(model, tokenizer, rows, base=base, folder=tmp_path)
    assert 0 <= difference < 1e-4
    after = logits(open_language_model(tmp_path), rows)
    assert largest_difference(before, after) < 1e-4
    assert largest_difference(before, started) > 0.1  # the adapters do something
    assert {path.name for path in tmp_path.iterdir()} == FILES
    names = set(load_file(base.folder / "model.safetensors"))
    found = load_file(tmp_path / "model.safetensors")
    assert set(found) == names
    assert {weight.dtype for weight in found.values()} == {torch.float32}
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))


def test_the_merged_weight_is_w_plus_scale_b_a(adapted, language_rows, tmp_path):
    model, base, tokenizer = adapted("lora")
    layer = model.get_base_model().model.layers[1].self_attn.q_proj
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.zero_()
        layer.lora_A["default"].weight[0, 5] = 0.5
        layer.lora_B["default"].weight[3, 0] = 0.25
    merge_language_model(model, tokenizer, language_rows(2), base=base, folder=tmp_path)
    before, after = load_file(base.folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    by_hand = torch.zeros(64, 64)
    by_hand[3, 5] = 6 / 2 * 0.25 * 0.5  # alpha / rank times B times A
    for name, weight in before.items():
        wanted = weight + by_hand if name == "model.layers.1.self_attn.q_proj.weight" else weight
        assert torch.equal(after[name], wanted), name


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("weights", ["nf4", "int8"])
def test_qlora_is_merged_into_what_training_has_seen(adapted, language_rows, tmp_path, weights, kind):
    model, base, tokenizer = adapted("qlora", kind, weights)
    name = "model.layers.0.mlp.up_proj" if kind == "llama" else "transformer.h.0.mlp.c_fc"
    layer = model.get_base_model().get_submodule(name)
    seen = dequantized(layer.base_layer) + layer.get_delta_weight("default").detach()
    assert len(dict(quantized_layers(model))) == (14 if kind == "llama" else 8)
    rows = language_rows(6)
    assert merge_language_model(model, tokenizer, rows, base=base, folder=tmp_path) < 1e-4
    found = open_language_model(tmp_path).get_submodule(name).weight
    assert torch.allclose(found if kind == "llama" else found.T, seen, atol=1e-6)
    original = open_pretrained(base).get_submodule(name).weight
    onto_original = (original if kind == "llama" else original.T) + layer.get_delta_weight("default")
    assert (seen - onto_original).abs().max() > 1e-4  # what merging onto the original weights would have missed


def test_a_model_without_adapters_is_saved_as_it_is(adapted, language_rows, tmp_path):
    model, base, tokenizer = adapted("full")
    trained = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    assert merge_language_model(model, tokenizer, language_rows(3), base=base, folder=tmp_path) == 0
    reopened = dict(open_language_model(tmp_path).named_parameters())
    assert all(torch.equal(reopened[name], weight) for name, weight in trained.items())


def test_an_adapter_that_is_lost_on_merging_is_an_error(adapted, language_rows, tmp_path, monkeypatch):
    model, base, tokenizer = adapted("lora")
    monkeypatch.setattr(type(model.base_model), "merge_and_unload", lambda self: self.unload())
    with pytest.raises(MergeError, match=r"After merging the model answers differently: logits are off by up to \d"):
        merge_language_model(model, tokenizer, language_rows(3), base=base, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_merge_into_4_bits_is_an_error(adapted, language_rows, tmp_path, monkeypatch):
    model, base, tokenizer = adapted("qlora")
    monkeypatch.setattr(merge, "_merged_in_fp32", lambda model, base: model.merge_and_unload())
    with (
        pytest.warns(UserWarning, match="may get different generations due to rounding errors"),
        pytest.raises(MergeError, match="After merging the model answers differently"),
    ):
        merge_language_model(model, tokenizer, language_rows(3), base=base, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_lost_on_saving_are_an_error(adapted, language_rows, tmp_path, monkeypatch):
    model, base, tokenizer = adapted("lora")

    def forgetful(folder):
        opened = open_language_model(folder)
        torch.nn.init.normal_(opened.model.norm.weight)
        return opened

    monkeypatch.setattr(merge, "open_language_model", forgetful)
    with pytest.raises(MergeError, match="After saving and opening the model answers differently"):
        merge_language_model(model, tokenizer, language_rows(3), base=base, folder=tmp_path)


def test_weights_of_other_names_or_shapes_are_an_error(adapted, language_rows, tmp_path):
    model, base, tokenizer = adapted("full")
    model.model.layers[0].register_parameter("added", torch.nn.Parameter(torch.zeros(2)))
    with pytest.raises(MergeError, match=r"weights are not the base's: model\.layers\.0\.added"):
        merge_language_model(model, tokenizer, language_rows(3), base=base, folder=tmp_path)


def test_logits_that_are_no_numbers_are_an_error(adapted, language_rows, tmp_path):
    model, base, tokenizer = adapted("lora")
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if "down_proj.lora_A" in name).fill_(float("nan"))
    with pytest.raises(MergeError, match="off by up to nan"):
        merge_language_model(model, tokenizer, language_rows(3), base=base, folder=tmp_path)


def test_sampling_settings_without_do_sample_can_be_saved(adapted, language_rows, tmp_path):
    model, base, tokenizer = adapted("full")
    model.generation_config.temperature = 0.6
    merge_language_model(model, tokenizer, language_rows(2), base=base, folder=tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text(encoding="utf-8"))
    assert (saved["temperature"], saved["do_sample"]) == (0.6, True)


@pytest.mark.parametrize(
    ("brought", "kept"),
    [
        ({"temperature": 0.6, "eos_token_id": [2, 5]}, {"temperature": 0.6, "do_sample": True, "eos_token_id": [2, 5]}),
        ({"pad_token_id": -1, "eos_token_id": 2, "bos_token_id": 1}, {"eos_token_id": [2], "bos_token_id": 1}),
        ({"temperature": 0.6, "pad_token_id": -1, "eos_token_id": "x"}, {}),
        ({"eos_token_id": 2, "max_length": 40}, {"eos_token_id": 2, "max_length": 40}),
    ],
)
def test_generation_settings_of_a_checkpoint_can_be_saved_or_leave_their_tokens(tmp_path, brought, kept):
    """transformers reads settings that it refuses to write; a training would fail at its first checkpoint."""
    model = SimpleNamespace(generation_config=GenerationConfig(**brought))
    mend_generation_config(model)
    model.generation_config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text(encoding="utf-8"))
    told = ("temperature", "do_sample", "eos_token_id", "bos_token_id", "pad_token_id", "max_length")
    assert {name: saved[name] for name in told if saved.get(name) is not None} == kept
