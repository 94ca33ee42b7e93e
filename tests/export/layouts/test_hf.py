"""The Hugging Face layout: the merged model of the work folder, file by file, and transformers opening it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from edgetune.export.generation.weights import merged_folder, weight_files, weights
from edgetune.export.layouts import hf
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


def test_the_folder_holds_the_merged_model_and_a_note(work, folder):
    assert hf.check(folder) == []
    names = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", *names]
    for name in names:
        assert (folder / name).read_bytes() == (work / "tune" / "model" / name).read_bytes()
    assert "vllm serve . --served-model-name tiny" in (folder / "README.md").read_text("utf-8")


def test_transformers_opens_it_and_gives_the_same_logits(work, folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer("the card has not arrived", return_tensors="pt")
    with torch.inference_mode():
        found, wanted = (
            AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32)(**batch).logits
            for one in (folder, work / "tune" / "model")
        )
    assert torch.equal(found, wanted)


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
