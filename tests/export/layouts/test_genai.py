"""The onnxruntime-genai layout: its static rules, and onnxruntime-genai giving the tokens that our runtime gives."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import msgspec
import pytest

from edgetune.export.layouts import genai
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleError
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.sampling import Sampling

HAS_GENAI = importlib.util.find_spec("onnxruntime_genai") is not None
needs_genai = pytest.mark.skipif(not HAS_GENAI, reason="onnxruntime-genai is not installed")


@pytest.fixture
def folder(language_bundle, tmp_path):
    made = tmp_path / "layout"
    made.mkdir()
    genai.write(language_bundle, made)
    return made


def read(path):
    return json.loads(path.read_text("utf-8"))


def test_the_folder_is_the_bundles_graph_with_a_configuration(language_bundle, folder):
    assert genai.check(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "genai_config.json", "generate.py", "generation_config.json", "model.onnx",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    for name in ("model.onnx", "tokenizer.json", "config.json"):
        assert (folder / name).read_bytes() == (language_bundle.folder / name).read_bytes()
    said = (folder / "README.md").read_text("utf-8")
    assert "padded on the right" in said
    assert "logits of every token" in said
    assert "the batch of this graph is one" not in said


def test_the_configuration_names_what_the_graph_has(folder):
    past, present = (f"{way}.past_key_values.layers.%d.{{}}" for way in ("input", "output"))
    assert read(folder / "genai_config.json") == {
        "model": {
            "type": "decoder",
            "context_length": 160,
            "vocab_size": 288,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": "model.onnx",
                "head_size": 8,
                "hidden_size": 32,
                "num_attention_heads": 4,
                "num_hidden_layers": 2,
                "num_key_value_heads": 2,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": past.format("keys"),
                    "past_value_names": past.format("values"),
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": present.format("keys"),
                    "present_value_names": present.format("values"),
                },
            },
        },
        "search": {"do_sample": False, "max_length": 160, "past_present_share_buffer": False},
    }


def with_spec(bundle, **changes):
    spec = msgspec.structs.replace(bundle.manifest.generation, **changes)
    return Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, generation=spec))


def test_a_graph_without_a_mask_names_none(language_bundle, tmp_path):
    kept = [one for one in language_bundle.manifest.inputs if one.name != "attention_mask"]
    one = with_spec(language_bundle, batch_one=True, eos_ids=[2, 7], pad_id=None)
    one = Bundle(one.folder, msgspec.structs.replace(one.manifest, inputs=kept))
    genai.write(one, tmp_path)
    assert genai.check(tmp_path) == []
    model = read(tmp_path / "genai_config.json")["model"]
    assert list(model["decoder"]["inputs"])[:2] == ["input_ids", "position_ids"]
    assert (model["eos_token_id"], model["pad_token_id"]) == ([2, 7], 2)
    assert "the batch of this graph is one" in (tmp_path / "README.md").read_text("utf-8")


def test_a_model_without_an_end_is_refused(language_bundle, tmp_path):
    with pytest.raises(BundleError, match="No token ends an answer"):
        genai.write(with_spec(language_bundle, eos_ids=[]), tmp_path)


def test_gpt2s_words_for_width_and_heads_are_known(language_bundle, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"n_embd": 48, "n_head": 6}')
    spec = language_bundle.manifest.generation
    decoder = genai.genai_config(Bundle(source, language_bundle.manifest), spec)["model"]["decoder"]
    assert (decoder["hidden_size"], decoder["num_attention_heads"]) == (48, 6)
    (source / "config.json").write_text('{"n_embd": 48}')
    with pytest.raises(BundleError, match="has no num_attention_heads"):
        genai.genai_config(Bundle(source, language_bundle.manifest), spec)


def test_a_classifier_is_refused(bundle, tmp_path):
    with pytest.raises(BundleError, match="answers text-classification, and this layout is for language models"):
        genai.write(bundle, tmp_path)
    assert not list(tmp_path.iterdir())


FAULTS = {
    "no graph": (lambda c: c["model"]["decoder"].update(filename="other.onnx"), "filename is 'other.onnx'"),
    "a graph elsewhere": (lambda c: c["model"]["decoder"].update(filename="../model.onnx"), "no such file lies here"),
    "no heads": (lambda c: c["model"]["decoder"].pop("num_key_value_heads"), "decoder.num_key_value_heads is None"),
    "no vocabulary": (lambda c: c["model"].update(vocab_size=0), "vocab_size is 0"),
    "no ids": (lambda c: c["model"]["decoder"]["inputs"].pop("input_ids"), "the tensor input_ids has no name"),
    "one layer": (
        lambda c: c["model"]["decoder"]["outputs"].update(present_key_names="present.0.keys"),
        "present_key_names is 'present.0.keys', without one %d",
    ),
    "a shared buffer": (lambda c: c["search"].update(past_present_share_buffer=True), "the graph's cache grows"),
    "too long": (lambda c: c["search"].update(max_length=161), "past the context of 160 tokens"),
    "no decoder": (lambda c: c["model"].pop("decoder"), "has no decoder"),
    "no search": (lambda c: c.pop("search"), "has no search"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_finds(folder, name):
    edit, wanted = FAULTS[name]
    config = read(folder / "genai_config.json")
    edit(config)
    (folder / "genai_config.json").write_text(json.dumps(config))
    assert any(wanted in fault for fault in genai.check(folder))


def test_an_empty_folder_has_faults(tmp_path):
    faults = genai.check(tmp_path)
    assert "genai_config.json is missing" in faults
    assert "tokenizer.json is missing" in faults
    assert "generate.py is missing" in faults


def genai_tokens(folder, ids, tokens):
    """The greedy answer of onnxruntime-genai to ids, at most `tokens` of them."""
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    settings = og.GeneratorParams(model)
    settings.set_search_options(do_sample=False, max_length=len(ids) + tokens)
    generator = og.Generator(model, settings)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    return [int(one) for one in generator.get_sequence(0)][len(ids) :]


def without_end(row, ends):
    return row[:-1] if row and row[-1] in ends else row


def same_tokens(bundle, folder, texts, tokens=64):
    """Compare both runtimes on texts; they differ in whether the end that was met belongs to an answer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    spec = bundle.manifest.generation
    decoder = Decoder(folder / "model.onnx", spec, threads=1)
    rows = [tokenizer.encode(text).ids for text in texts]
    ours = [decoder.generate_ids([row], Sampling(max_tokens=tokens))[0] for row in rows]
    theirs = [genai_tokens(folder, row, tokens) for row in rows]
    assert [without_end(row, spec.eos_ids) for row in theirs] == [without_end(row, spec.eos_ids) for row in ours]
    assert max(map(len, ours)) >= 10, "an answer so short proves little"


@pytest.mark.servers
@needs_genai
def test_genai_gives_the_same_tokens(language_bundle, folder, prompts):
    same_tokens(language_bundle, folder, prompts)


@pytest.mark.servers
@needs_genai
def test_the_script_in_the_folder_answers(language_bundle, folder, prompts):
    from tokenizers import Tokenizer

    done = subprocess.run(
        [sys.executable, str(folder / "generate.py"), prompts[1], "16"],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(prompts[1]).ids
    assert done.stdout == tokenizer.decode([*ids, *genai_tokens(folder, ids, 16)]) + "\n"


@pytest.mark.slow
@pytest.mark.servers
@needs_genai
@pytest.mark.parametrize(
    ("family", "batch_one"), [("llama", True), ("gpt2", False), ("qwen3", False), ("gemma3", False)]
)
def test_genai_gives_the_same_tokens_for(tiny_decoder, write_language_bundle, tmp_path, prompts, family, batch_one):
    from edgetune.export.stepwise.graph import export_decoder

    graph = export_decoder(tiny_decoder(family), tmp_path / "graph", batch_one=batch_one)
    bundle = write_language_bundle(tiny_decoder(family), graph, tmp_path / "bundle")
    made = tmp_path / "made"
    made.mkdir()
    genai.write(bundle, made)
    assert genai.check(made) == []
    same_tokens(bundle, made, prompts)


@pytest.mark.slow
@pytest.mark.servers
@needs_genai
@pytest.mark.parametrize("scheme", ["int4_g128", "int4", "int4_head8", "int8"])
def test_genai_gives_the_same_tokens_of_a_graph_in_few_bits(
    llama_graph, tiny_decoder, write_language_bundle, tmp_path, prompts, scheme
):
    from tokenizers import Tokenizer

    from edgetune.compress.gptq.schemes import scheme_named, write_scheme

    tokenizer = Tokenizer.from_file(str(tiny_decoder("llama") / "tokenizer.json"))
    texts = [tokenizer.encode(prompt).ids for prompt in prompts]
    few = tmp_path / "few" / "model.onnx"
    coverage = write_scheme(scheme_named(scheme), llama_graph.path, few, calibration=texts, spec=llama_graph.spec)
    assert coverage.quantized
    graph = dataclasses.replace(llama_graph, path=few)
    bundle = write_language_bundle(tiny_decoder("llama"), graph, tmp_path / "bundle")
    made = tmp_path / "made"
    made.mkdir()
    genai.write(bundle, made)
    assert genai.check(made) == []
    same_tokens(bundle, made, prompts)
