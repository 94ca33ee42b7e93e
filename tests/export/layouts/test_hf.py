"""The Hugging Face layout: the merged model of the work folder, file by file, and transformers 5 and 4 opening it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edgetune.commands import pack
from edgetune.export.layouts import hf
from edgetune.export.stepwise.weights import merged_folder, model_digest, weight_files, weights
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleError, WorkError


@pytest.fixture
def work(language_bundle):
    return language_bundle.folder.with_name(f"{language_bundle.folder.name}.work")


@pytest.fixture
def folder(language_bundle, tmp_path):
    made = tmp_path / "layout"
    made.mkdir()
    hf.write(language_bundle, made)
    return made


def test_the_folder_holds_the_merged_model_and_a_note(language_bundle, work, folder):
    assert hf.check(folder) == []
    names = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", *names]
    model = work / "tune" / "model"
    for name in ("generation_config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (model / name).read_bytes()
    assert (folder / "tokenizer.json").read_bytes() == (language_bundle.folder / "tokenizer.json").read_bytes()
    config = read(model / "config.json")
    assert read(folder / "config.json") == {**config, "torch_dtype": config["dtype"], "rope_theta": 10000.0}
    said = read(model / "tokenizer_config.json")
    assert said.pop("tokenizer_class") == "TokenizersBackend"
    kept = {name: value for name, value in said.items() if name not in ("is_local", "local_files_only")}
    assert read(folder / "tokenizer_config.json") == {**kept, "tokenizer_class": "PreTrainedTokenizerFast"}
    assert "vllm serve . --served-model-name tiny" in (folder / "README.md").read_text("utf-8")


def read(path):
    return json.loads(path.read_text("utf-8"))


ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
OLDER = {
    "plain": ({"rope_type": "default", "rope_theta": 1e6}, {"rope_theta": 1e6}),
    "a part": (
        {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
    ),
    "scaled": (
        ROPE,
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}},
    ),
    "two kinds of layers": (
        {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
    ),
    "learnt": (None, {}),
}


@pytest.mark.parametrize("name", OLDER)
def test_positions_are_told_in_the_words_of_transformers_4_too(name):
    rope, wanted = OLDER[name]
    config = {"model_type": "x"} if rope is None else {"model_type": "x", "rope_parameters": rope}
    assert hf.with_older_words(config) == {**config, **wanted}
    assert hf.with_older_words(hf.with_older_words(config)) == {**config, **wanted}


def test_a_tokenizer_is_told_in_the_words_of_transformers_4():
    said = {
        "tokenizer_class": "TokenizersBackend",
        "extra_special_tokens": ["<a>"],
        "chat_template": "old",
        "is_local": True,
    }
    assert hf.with_older_tokenizer_words(said, None) == {
        "tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<a>"],
    }  # fmt: skip
    assert hf.with_older_tokenizer_words({"tokenizer_class": "GemmaTokenizer"}, "new") == {
        "tokenizer_class": "GemmaTokenizer", "chat_template": "new",
    }  # fmt: skip


TEMPLATE = "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def test_the_template_that_the_model_was_tuned_with_goes_along(language_bundle, work, tmp_path):
    """The merged model's own may be its base's; text-generation-inference reads tokenizer_config.json alone."""
    from transformers import AutoTokenizer

    bundle, model, made = (tmp_path / name for name in ("bundle", "model", "made"))
    shutil.copytree(language_bundle.folder, bundle)
    shutil.copytree(work / "tune" / "model", model)
    (bundle / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8", newline="\n")
    (model / "chat_template.jinja").write_text("another")
    made.mkdir()
    hf.write_model(Bundle(bundle, language_bundle.manifest), model, made)
    assert hf.check(made) == []
    assert (made / "chat_template.jinja").read_text("utf-8") == TEMPLATE
    assert read(made / "tokenizer_config.json")["chat_template"] == TEMPLATE
    chat = [{"role": "user", "content": "hello"}]
    asked = AutoTokenizer.from_pretrained(made).apply_chat_template(chat, tokenize=False)
    assert asked == "<s>user: hello\nassistant:"
    (made / "chat_template.jinja").write_text("another")
    assert hf.check(made) == ["tokenizer_config.json: its chat_template is not that of chat_template.jinja"]


OPEN = """
import json, sys
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

texts = json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
rows = [tokenizer(text)["input_ids"] for text in texts]
answers = [
    model.generate(
        torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long),
        do_sample=False, max_new_tokens=64, pad_token_id=0,
    )[0, len(row):].tolist()
    for row in rows
]
print(json.dumps([transformers.__version__, rows, answers]))
"""


def opened_here(folder, texts):
    """Ids of texts and the greedy answers of transformers 5."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = [tokenizer(text)["input_ids"] for text in texts]
    answers = []
    for row in rows:
        ids, mask = torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long)
        found = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=64, pad_token_id=0)
        answers.append(found[0, len(row) :].tolist())
    return rows, answers


def test_transformers_opens_it_and_gives_the_same_tokens(work, folder, prompts):
    wanted = opened_here(work / "tune" / "model", prompts)
    assert opened_here(folder, prompts) == wanted
    assert max(map(len, wanted[1])) >= 10, "answers so short prove little"


FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi", "phi3", "gpt2", "smollm3", "mistral")


def repositioned(source, folder):
    """A copy of a model with another base of its positions than any family's own: ignored, it shows in the tokens."""
    shutil.copytree(source, folder)
    config = read(folder / "config.json")
    for part in [config.get("rope_parameters") or {}, *(config.get("rope_parameters") or {}).values()]:
        if isinstance(part, dict) and "rope_theta" in part:
            part["rope_theta"] *= 0.03
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_4_opens_it_and_gives_the_same_tokens(
    tiny_decoder, language_bundle, server_environment, python_output, prompts, tmp_path, family
):
    """Servers with transformers 4, text-generation-inference among them, take the same positions and the same ids.

    The environment brings transformers 4 and what it needs, this one torch: both are of one Python.
    """
    import torch

    environment = server_environment("transformers4", ["transformers==4.57.6", "safetensors"])
    older = next(environment.parent.parent.glob("lib/python*/site-packages"))
    made = tmp_path / "made"
    made.mkdir()
    model = repositioned(tiny_decoder(family), tmp_path / "model")
    hf.write_model(language_bundle, model, made)
    assert hf.check(made) == []
    torch_folder = Path(torch.__file__).parent.parent
    found = python_output(
        sys.executable, OPEN, made, json.dumps(prompts), cwd=tmp_path,
        PYTHONPATH=f"{older}{os.pathsep}{torch_folder}", HF_HUB_OFFLINE="1",
    )  # fmt: skip
    version, *answered = json.loads(found.splitlines()[-1])
    assert version.startswith("4.")
    assert tuple(answered) == opened_here(model, prompts)


def test_weights_are_read_as_safetensors_reads_them(work):
    from safetensors.numpy import load_file

    model = work / "tune" / "model"
    wanted = load_file(model / "model.safetensors")
    found = weights(model)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        read = found[name].read()
        assert read.dtype == np.float32
        assert np.array_equal(read, values)


def test_bfloat16_halves_and_shards_are_read_too(tmp_path):
    import torch
    from safetensors.torch import save_file

    values = torch.tensor([[1.5, -2.25], [3e20, 0.0]])
    save_file({"a": values.bfloat16()}, tmp_path / "model-1.safetensors")
    save_file({"b": values[:1].half(), "c": torch.tensor([7], dtype=torch.uint8)}, tmp_path / "model-2.safetensors")
    placed = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    found = weights(tmp_path)
    assert np.array_equal(found["a"].read(), values.bfloat16().float().numpy())
    assert found["b"].read().tolist() == [[1.5, -2.25]]
    assert weight_files(tmp_path) == ["model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"]
    with pytest.raises(WorkError, match="holds U8 weights"):
        found["c"].read()


@pytest.mark.parametrize(
    ("content", "wanted"),
    [(b"", "its header is said to have 0"), (b"\xff" * 40, "its header is said to have"), (b"", "no safetensors file")],
)
def test_a_file_of_weights_that_is_none(tmp_path, content, wanted):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(WorkError, match=wanted):
        weights(tmp_path)


def test_weights_that_are_cut_short(work, tmp_path):
    content = (work / "tune" / "model" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(WorkError, match="is cut short"):
        weights(tmp_path)


def test_a_classifier_is_refused(bundle, work, tmp_path):
    with pytest.raises(BundleError, match="is for language models"):
        hf.write_model(bundle, work / "tune" / "model", tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_work_folder_it_says_what_is_missing(language_bundle, tmp_path):
    shutil.copytree(language_bundle.folder, tmp_path / "moved")
    moved = Bundle.open(tmp_path / "moved")
    with pytest.raises(WorkError, match=r"moved\.work holds no merged model") as told:
        merged_folder(moved)
    assert "a bundle has its graph alone" in told.value.expected
    assert merged_folder(moved, language_bundle.folder.with_name("tiny.work")).name == "model"


@pytest.mark.parametrize(
    ("name", "key", "value"), [("config.json", "hidden_size", 64), ("tokenizer.json", "model", {})]
)
def test_another_models_work_folder_is_refused(language_bundle, work, tmp_path, name, key, value):
    other = tmp_path / "other"
    shutil.copytree(work, other)
    path = other / "tune" / "model" / name
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), key: value}))
    with pytest.raises(WorkError, match=f"is not the model of .*: their {name} differ"):
        merged_folder(language_bundle, other)


def test_weights_of_another_build_are_refused_by_their_digest(language_bundle, work, tmp_path):
    told = Bundle(
        language_bundle.folder,
        msgspec.structs.replace(language_bundle.manifest, model_digest=model_digest(work / "tune" / "model")),
    )
    assert merged_folder(told) == work / "tune" / "model"
    other = tmp_path / "other.work"
    shutil.copytree(work, other)
    assert merged_folder(told, other) == other / "tune" / "model"
    path = other / "tune" / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WorkError, match=r"its weights are of another build \(sha256:") as refused:
        merged_folder(told, other)
    assert "--work" in (refused.value.action or "")
    assert merged_folder(language_bundle, other)  # a bundle without the digest: configuration and tokenizer alone


def test_pack_takes_the_work_folder_that_is_named(language_bundle, work, tmp_path):
    shutil.copytree(language_bundle.folder, tmp_path / "moved")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "moved"), "--layout", "hf", "-o", str(out)]
    with pytest.raises(WorkError, match=r"moved\.work holds no merged model") as told:
        CliRunner().invoke(pack.command, arguments, catch_exceptions=False)
    assert "--work" in (told.value.action or "")
    assert not out.exists()
    packed = CliRunner().invoke(pack.command, [*arguments, "--work", str(work)], catch_exceptions=False)
    assert packed.exit_code == 0
    assert (out / "model.safetensors").read_bytes() == (work / "tune" / "model" / "model.safetensors").read_bytes()


def edited(name, **changes):
    def edit(folder):
        said = {**json.loads((folder / name).read_text("utf-8")), **changes}
        (folder / name).write_text(json.dumps(said))

    return edit


def renamed(old, new):
    """The header is JSON text: a name of the same length leaves every offset as it was."""

    def edit(folder):
        assert len(old) == len(new)
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes().replace(old, new, 1))

    return edit


FAULTS = {
    "a trunk": (edited("config.json", architectures=["LlamaModel"]), "no causal language model"),
    "no model_type": (edited("config.json", model_type=None), "names no model_type"),
    "quantized": (edited("config.json", quantization_config={}), "has a quantization_config"),
    "a slow tokenizer": (edited("tokenizer.json", model=None), "holds no fast tokenizer"),
    "no head": (edited("config.json", tie_word_embeddings=False), "the weights have no head"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    "an adapter": (renamed(b"model.norm.weight", b"lora_.norm.weight"), "is an adapter's or a quantizer's"),
    "a new class": (edited("tokenizer_config.json", tokenizer_class="TokenizersBackend"), "is none of transformers 4"),
    "a list of tokens": (edited("tokenizer_config.json", extra_special_tokens=[]), "extra_special_tokens is a list"),
    "new words": (
        lambda folder: (folder / "config.json").write_text(
            json.dumps({name: value for name, value in read(folder / "config.json").items() if name != "rope_theta"})
        ),
        "config.json has no rope_theta, which transformers 4 reads",
    ),
    "no end": (edited("generation_config.json", eos_token_id=None), "has an eos_token_id"),
    "no tokenizer": (lambda folder: (folder / "tokenizer_config.json").unlink(), "tokenizer_config.json is missing"),
    "an index": (
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            '{"weight_map": {"model.norm.weight": "model.safetensors", "gone": "model.safetensors"}}'
        ),
        "names gone, which no file holds",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_finds(folder, name):
    edit, wanted = FAULTS[name]
    edit(folder)
    assert any(wanted in fault for fault in hf.check(folder)), hf.check(folder)


def test_an_empty_folder_has_faults(tmp_path):
    assert hf.check(tmp_path) == [
        "config.json is missing", "tokenizer.json is missing", "tokenizer_config.json is missing",
        "model.safetensors is missing",
    ]  # fmt: skip
