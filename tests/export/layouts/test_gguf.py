"""The GGUF layout: names, shapes and values as `gguf` reads them back, the vocabulary, and llama.cpp's own tokens."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgetune.export.generation.weights import weights
from edgetune.export.layouts import gguf as layout
from edgetune.export.layouts.gguf_vocabulary import read_vocabulary
from edgetune.serve.errors import BundleError, MissingDependency

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture
def model(tiny_decoder):
    return tiny_decoder("llama")


@pytest.fixture
def folder(language_bundle, tmp_path):
    made = tmp_path / "layout"
    made.mkdir()
    layout.write(language_bundle, made)
    return made


def contents(reader):
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}


def tensors(reader):
    return {one.name: np.array(one.data) for one in reader.tensors}


def in_halves(values, heads):
    """Rows put back from pairs to halves, as a reader of the format undoes them."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def test_rotated_rows_go_from_halves_to_pairs():
    assert layout.interleaved(np.arange(8, dtype=np.float32)[:, None], 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_every_weight_is_in_the_file_with_its_values(model, folder):
    assert layout.check(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.gguf"]
    found, wanted = tensors(gguf.GGUFReader(folder / "model.gguf")), weights(model)
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for layer in range(2):
        names |= {f"model.layers.{layer}.{old}.weight": f"blk.{layer}.{new}.weight" for old, new in NAMES.items()}
    assert found.keys() == set(names.values()), "the head is tied: it is not written again"
    assert wanted.keys() == names.keys()
    for old, new in names.items():
        values = found[new]
        heads = 4 if "q_proj" in old else 2 if "k_proj" in old else None
        assert np.array_equal(in_halves(values, heads) if heads else values, wanted[old].read()), new
        assert values.dtype == np.float32


def test_what_the_file_says_of_the_model(folder):
    said = contents(gguf.GGUFReader(folder / "model.gguf"))
    sizes = {name.removeprefix("llama."): value for name, value in said.items() if name.startswith("llama.")}
    assert sizes == {
        "context_length": 160,
        "embedding_length": 32,
        "block_count": 2,
        "feed_forward_length": 64,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 8,
        "attention.value_length": 8,
        "attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "rope.dimension_count": 8,
        "rope.freq_base": 10000.0,
        "vocab_size": 288,
    }
    general = {name: value for name, value in said.items() if name.startswith("general.")}
    assert general == {"general.architecture": "llama", "general.name": "tiny", "general.file_type": 0}
    tokenizer = {name.removeprefix("tokenizer.ggml."): said[name] for name in said if name.startswith("tokenizer.")}
    pieces, merges = tokenizer.pop("tokens"), tokenizer.pop("merges")
    kinds = tokenizer.pop("token_type")
    assert tokenizer == {
        "model": "gpt2",
        "pre": "gpt-2",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 0,
        "add_bos_token": True,
        "add_space_prefix": False,
    }
    assert pieces[:3] == ["<pad>", "<s>", "</s>"]
    assert (len(pieces), kinds[:4]) == (288, [3, 3, 3, 1])
    assert len(merges) == 288 - 256 - 3
    assert all(len(one.split(" ")) == 2 for one in merges)


def spm_tokenizer(path: Path) -> Path:
    """A tokenizer of Llama 2's kind: characters, bytes to fall back on, and merges by rank."""
    from tokenizers import Tokenizer, models, normalizers

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab", "▁a", "▁ab"]
    merges = [("a", "b"), ("▁", "a"), ("▁", "ab"), ("▁a", "b")]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_tokens(["<tool>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.save(str(path))
    return path


def test_a_vocabulary_of_characters_gets_scores_by_the_rank_of_merges(tmp_path):
    found = read_vocabulary(spm_tokenizer(tmp_path / "tokenizer.json"), 267, 1)
    assert (found.kind, found.split, found.merges) == ("llama", "default", [])
    assert (found.adds_bos, found.adds_space) == (False, True)
    assert found.pieces[259:] == ["▁", "a", "b", "ab", "▁a", "▁ab", "<tool>", "[unused266]"]
    assert found.kinds[:4] == [2, 3, 3, 6]
    assert found.kinds[259:] == [1, 1, 1, 1, 1, 1, 4, 5]
    assert found.scores[259:] == [-5.0, -5.0, -5.0, -1.0, -2.0, -3.0, -5.0, -5.0]


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split_by(pattern):
    rule = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [rule, BYTES]}


DIGITS = {"type": "Digits", "individual_digits": True}
SPLITS = {
    "llama-bpe": split_by(LLAMA3),
    "qwen2": split_by(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")),
    "smollm": {"type": "Sequence", "pretokenizers": [DIGITS, {**BYTES, "use_regex": True}]},
}


@pytest.mark.parametrize("name", SPLITS)
def test_the_rule_that_splits_text_is_known_by_its_name(model, tmp_path, name):
    said = {**json.loads((model / "tokenizer.json").read_text("utf-8")), "pre_tokenizer": SPLITS[name]}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(said), "utf-8")
    assert read_vocabulary(path, 288, 1).split == name


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"pre_tokenizer": split_by("x")}, "it splits text by Split and ByteLevel in a way of its own"),
        ({"pre_tokenizer": None}, "it splits text by nothing"),
        ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}, "its model is WordLevel"),
    ],
)
def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(model, tmp_path, change, wanted):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads((model / "tokenizer.json").read_text("utf-8")), **change}), "utf-8")
    with pytest.raises(BundleError, match=wanted):
        read_vocabulary(path, 288, 1)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"model_type": "gpt2"}, "A gpt2 model with default positions is not written"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "A llama model with yarn positions is not written"),
        ({"num_hidden_layers": 1}, r"no name for the weight model\.layers\.1"),
    ],
)
def test_a_model_that_cannot_be_written_is_refused_by_name(language_bundle, model, tmp_path, change, wanted):
    source = tmp_path / "model"
    shutil.copytree(model, source)
    config = {**json.loads((source / "config.json").read_text("utf-8")), **change}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=wanted):
        layout.write_model(language_bundle, source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_chat_template_and_an_end_of_turn_go_along(language_bundle, model, tmp_path):
    import msgspec

    from edgetune.serve.bundle import Bundle

    source, made = tmp_path / "model", tmp_path / "made"
    shutil.copytree(model, source)
    made.mkdir()
    (source / "chat_template.jinja").write_text("{{ messages }}")
    spec = msgspec.structs.replace(language_bundle.manifest.generation, eos_ids=[1, 2])
    manifest = msgspec.structs.replace(language_bundle.manifest, generation=spec)
    layout.write_model(Bundle(language_bundle.folder, manifest), source, made)
    said = contents(gguf.GGUFReader(made / "model.gguf"))
    assert said["tokenizer.chat_template"] == "{{ messages }}"
    assert (said["tokenizer.ggml.eos_token_id"], said["tokenizer.ggml.eot_token_id"]) == (2, 1)


def test_without_the_package_it_says_how_to_get_it(language_bundle, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependency, match="pip install gguf"):
        layout.write(language_bundle, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_check_finds_what_is_missing_or_no_gguf(folder, tmp_path):
    assert layout.check(tmp_path) == ["model.gguf is missing"]
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_embedding_length(4)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", np.zeros((3, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert layout.check(folder) == [
        "model.gguf has no tensor output_norm.weight", "model.gguf: token_embd.weight is [4, 3], not [4, 2]",
    ]  # fmt: skip
    (folder / "model.gguf").write_bytes(b"GGML" + bytes(60))
    assert "cannot be read: GGUF magic invalid" in layout.check(folder)[0]


def llama_cpp_tokens(path: Path, ids: list[int], tokens: int) -> list[int]:
    import llama_cpp

    model = llama_cpp.Llama(
        model_path=str(path), n_ctx=0, n_threads=1, n_threads_batch=1, logits_all=False, verbose=False
    )
    found = []
    for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
        found.append(int(token))
        if len(found) == tokens:
            break
    model.close()
    return found


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "stories"])
def test_llama_cpp_gives_the_same_tokens(tiny_decoder, language_bundle, prompts, tmp_path, name):
    """Ids of the texts, and 48 greedy tokens of each, against transformers."""
    import llama_cpp
    import torch
    from transformers import AutoTokenizer, GenerationConfig

    from edgetune.export.generation.graph import open_decoder

    if name == "stories":
        source = Path(os.environ.get("EDGETUNE_DATA", "/nowhere")) / "models" / "stories260K-llama"
        if not source.is_dir():
            pytest.skip("EDGETUNE_DATA has no stories260K-llama")
        prompts = ["Once upon a time", "Lily and Tom went to the park", "The big dog said"]
    else:
        source = tiny_decoder(name)
    layout.write_model(language_bundle, source, tmp_path)
    assert layout.check(tmp_path) == []
    path = tmp_path / "model.gguf"
    opened = llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)
    tokenizer, model = AutoTokenizer.from_pretrained(source), open_decoder(source)
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=48, pad_token_id=0)
    for prompt in prompts:
        ids = tokenizer(prompt)["input_ids"]
        assert opened.tokenize(prompt.encode(), add_bos=True, special=True) == ids
        with torch.inference_mode():
            wanted = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
        assert llama_cpp_tokens(path, ids, 48) == wanted[0, len(ids) :].tolist()
    opened.close()
