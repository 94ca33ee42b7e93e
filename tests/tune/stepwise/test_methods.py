"""The methods: what each trains, with which rates, and what the recipe says about them."""

import pytest
import torch
from pydantic import ValidationError

from edgetune.serve.errors import ModelError, RecipeError
from edgetune.tune.models.base import find_base
from edgetune.tune.recipe import FreezeRecipe
from edgetune.tune.stepwise import qlora
from edgetune.tune.stepwise.methods import METHODS
from edgetune.tune.stepwise.model import language_config, open_pretrained
from edgetune.tune.stepwise.qlora import dequantized, exact_arithmetic, open_quantized, quantized_layers
from edgetune.tune.stepwise.recipe import AdapterRecipe, GenerationTuneRecipe, QloraRecipe

LLAMA_LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


class Heard:
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def advance(self, done, total, note=""):
        pass


@pytest.fixture
def base(language_base):
    return find_base(str(language_base()))


def trained_names(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def logits(model, ids=((1, 5, 9, 13, 4, 7),)):
    with torch.inference_mode():
        return model.eval()(torch.tensor(ids)).logits


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "pissa", "loraplus"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapters_sit_on_all_linear_layers_but_the_head_and_start_as_nothing(language_base, method, kind):
    base = find_base(str(language_base(kind)))
    before = logits(open_pretrained(base))
    model = METHODS[method].prepare(open_pretrained(base), GenerationTuneRecipe(method=method))
    assert torch.allclose(logits(model), before, atol=1e-4)
    names = trained_names(model)
    assert all("lora_" in name for name in names)
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in names}
    assert layers == (LLAMA_LINEAR if kind == "llama" else {"c_attn", "c_proj", "c_fc"})


def test_the_kin_of_lora_are_what_their_names_say(base):
    recipe = GenerationTuneRecipe(adapter=AdapterRecipe(rank=4, alpha=8, dropout=0.25))

    def layer(method):
        model = METHODS[method].prepare(open_pretrained(base), recipe)
        return next(module for name, module in model.named_modules() if name.endswith("layers.0.self_attn.q_proj"))

    assert layer("lora").scaling["default"] == 8 / 4
    assert layer("rslora").scaling["default"] == 8 / 4**0.5
    assert layer("lora").lora_dropout["default"].p == 0.25
    assert "default" in layer("dora").lora_magnitude_vector
    assert layer("lora").lora_A["default"].weight.shape == (4, 64)
    # PiSSA: the adapters hold the four largest singular values, the rest is left in the frozen weight.
    original = open_pretrained(base).model.layers[0].self_attn.q_proj.weight
    left = torch.linalg.svdvals(layer("pissa").base_layer.weight.detach())
    assert torch.allclose(left[:-4], torch.linalg.svdvals(original.detach())[4:], atol=1e-4)
    assert left[-4:].max() < 1e-4


def test_freeze_trains_the_top_layers_and_the_last_norm(base):
    model = METHODS["freeze"].prepare(open_pretrained(base), GenerationTuneRecipe(method="freeze"))
    names = trained_names(model)
    assert {name for name in names if "layers." not in name} == {"model.norm.weight"}
    assert {name.split(".")[2] for name in names if "layers." in name} == {"1"}
    too_many = GenerationTuneRecipe(method="freeze", freeze=FreezeRecipe(top_layers=3))
    with pytest.raises(RecipeError, match=r"tune.freeze.top_layers is 3, and the model has 2 layers"):
        METHODS["freeze"].prepare(open_pretrained(base), too_many)


def test_full_trains_every_weight(base):
    model = METHODS["full"].prepare(open_pretrained(base), GenerationTuneRecipe(method="full"))
    assert trained_names(model) == {name for name, _ in model.named_parameters()}


def test_the_recipe_lists_its_methods_and_forbids_what_it_does_not_know():
    with pytest.raises(ValidationError, match="there is no method 'ppo'; expected one of lora, rslora, dora"):
        GenerationTuneRecipe(method="ppo")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        GenerationTuneRecipe(lora_r=8)
    assert GenerationTuneRecipe.model_validate({"qlora": {"weights": "int8"}}).qlora == QloraRecipe(weights="int8")
    assert all(0 < method.rate <= 1e-2 and method.summary for method in METHODS.values())


@pytest.mark.parametrize("weights", ["nf4", "int8"])
@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("gpt2", True)])
def test_qlora_holds_all_linear_layers_but_the_head(language_base, weights, kind, tied):
    base = find_base(str(language_base(kind, tied)))
    heard = Heard()
    recipe = GenerationTuneRecipe(method="qlora", qlora=QloraRecipe(weights=weights))
    model = open_quantized(base, recipe, device="cpu", bf16=False, progress=heard)
    layers = dict(quantized_layers(model))
    count = 14 if kind == "llama" else 8
    assert len(layers) == count
    assert "lm_head" not in layers
    assert heard.said[0].startswith(f"qlora: {count} layers with ")
    assert heard.said[0].endswith(f"are held in {weights}, the head and the rest in fp32")
    name = "model.layers.1.mlp.down_proj" if kind == "llama" else "transformer.h.1.mlp.c_proj"
    original = open_pretrained(base).get_submodule(name).weight.detach()
    found = dequantized(layers[name])
    wanted = original if kind == "llama" else original.T
    assert found.shape == wanted.shape
    assert 0 < (found - wanted).abs().max() < wanted.abs().max() * (0.2 if weights == "nf4" else 0.01)
    assert not trained_names(model)


def test_training_over_4_bits_has_the_same_gradient_after_an_evaluation(base):
    """bitsandbytes' kernel for AVX512-BF16 repacks the weights in the first evaluation and has no gradient after it."""
    model = open_quantized(base, GenerationTuneRecipe(method="qlora"), device="cpu", bf16=False, progress=Heard())
    model = METHODS["qlora"].prepare(model, GenerationTuneRecipe(method="qlora", adapter=AdapterRecipe(rank=2)))
    ids = torch.tensor([[1, 5, 9, 13, 4]])

    def gradient():
        model.train().zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [weight.grad.clone() for name, weight in model.named_parameters() if "lora_B" in name]

    before = gradient()
    logits(model)
    after = gradient()
    assert max(gradient.abs().max() for gradient in before) > 1e-3
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)


def test_exact_arithmetic_is_that_of_the_dequantized_weights_and_is_undone(base):
    recipe = GenerationTuneRecipe(method="qlora", qlora=QloraRecipe(weights="int8"))
    model = open_quantized(base, recipe, device="cpu", bf16=False, progress=Heard())
    plain = open_pretrained(base)
    with torch.no_grad():
        for name, layer in quantized_layers(model):
            plain.get_submodule(name).weight.copy_(dequantized(layer))
    kernels = logits(model)
    with exact_arithmetic(model):
        assert torch.allclose(logits(model), logits(plain), atol=1e-5)
    assert torch.equal(logits(model), kernels)
    assert not torch.allclose(kernels, logits(plain), atol=1e-5)  # int8's activations are rounded too


def test_shapes_that_the_kernel_refuses_stay_in_fp32_where_it_cannot_be_left(base, monkeypatch):
    shapes = {"fits": (32, 64), "outputs": (172, 64), "inputs": (64, 172), "both": (33, 65)}
    assert qlora.refused_shapes(shapes) == ["outputs", "inputs", "both"]
    monkeypatch.setattr(qlora, "_kernel_has_switch", lambda bitsandbytes: False)
    monkeypatch.setattr(qlora, "_ROWS", 128)
    heard = Heard()
    model = open_quantized(base, GenerationTuneRecipe(method="qlora"), device="cpu", bf16=False, progress=heard)
    kept = {name.rpartition(".")[2] for name, _ in quantized_layers(model)}
    assert kept == {"gate_proj", "up_proj"}  # the only ones with 128 outputs
    assert heard.said[0] == (
        "qlora: 10 of 14 layers stay in fp32, whose shapes the processor's 4-bit kernel refuses (it wants outputs "
        "divisible by 128 and inputs by 64); first model.layers.0.self_attn.q_proj"
    )
    monkeypatch.setattr(qlora, "_ROWS", 1000)
    with pytest.raises(ModelError, match="None of the 14 linear layers"):
        open_quantized(base, GenerationTuneRecipe(method="qlora"), device="cpu", bf16=False, progress=heard)


def test_odd_shapes_train_and_evaluate_in_4_bits(tmp_path):
    """The real stories model has 172 inner units, on which bitsandbytes' own kernel stops with an AssertionError."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=32, hidden_size=24, intermediate_size=44, num_hidden_layers=1, num_attention_heads=2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    recipe = GenerationTuneRecipe(method="qlora")
    model = open_quantized(find_base(str(tmp_path)), recipe, device="cpu", bf16=False, progress=Heard())
    assert len(dict(quantized_layers(model))) == 7
    assert torch.isfinite(logits(model)).all()


def test_an_encoder_is_refused(tiny_base):
    with pytest.raises(ModelError, match=r"does not generate text\.\nExpected: a decoder with its head"):
        language_config(find_base(str(tiny_base("bert"))))


def test_missing_weights_are_refused(base, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(base.folder, tmp_path / "cut")
    weights = load_file(tmp_path / "cut" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, first model.layers.1.mlp.up_proj.weight: they would be"):
        open_pretrained(find_base(str(tmp_path / "cut")))
