"""The GGUF layout: names, shapes and values as `gguf` reads them back, and the models that are refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from edgetune.compress.gptq.quantization import quantize_decoder
from edgetune.compress.gptq.rounding import Blocks, Grid, nearest
from edgetune.export.layouts import gguf as layout
from edgetune.export.layouts import gguf_families, write_layout
from edgetune.export.layouts.gguf_blocks import encoded, type_name
from edgetune.export.layouts.gguf_tensors import interleaved, renamed_tensors, rope_factors
from edgetune.export.stepwise.weights import weights
from edgetune.serve.bundle import Bundle
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
    assert interleaved(np.arange(8, dtype=np.float32)[:, None], 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


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
        "add_eos_token": False,
        "add_space_prefix": False,
    }
    assert pieces[:3] == ["<pad>", "<s>", "</s>"]
    assert (len(pieces), kinds[:4]) == (288, [3, 3, 3, 1])
    assert len(merges) == 288 - 256 - 3
    assert all(len(one.split(" ")) == 2 for one in merges)


def changed_model(source, folder, **changes):
    """A copy of a model's folder with other words in its config.json."""
    shutil.copytree(source, folder)
    config = {**json.loads((source / "config.json").read_text("utf-8")), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


ROPE = {"rope_type": "default", "rope_theta": 10000.0}
WIDTH = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
GEMMA2 = {
    **WIDTH, "head_dim": 16, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 16, "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"], "tie_word_embeddings": True, "rope_parameters": ROPE,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
}  # fmt: skip
UNLIKE = {
    "another family": ({"model_type": "gpt_neox"}, "it is none of llama, mistral"),
    "scaled positions": (
        {"model_type": "llama", "rope_parameters": {**ROPE, "rope_type": "yarn"}},
        "its positions are scaled by yarn",
    ),
    "Llama 3's, of Qwen": (
        {"model_type": "qwen3", "rope_parameters": {**ROPE, "rope_type": "llama3"}},
        "its positions are scaled by llama3",
    ),
    "a part of each head": (
        {"model_type": "llama", "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
        "its positions rotate a part of each head",
    ),
    "no positions": ({"model_type": "llama"}, "no rope_parameters with a rope_theta"),
    "another activation": (
        {"model_type": "llama", "hidden_act": "gelu", "rope_parameters": ROPE},
        "its activation is gelu, not swish",
    ),
    "GPT-2's scales": (
        {"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True},
        "scale_attn_by_inverse_layer_idx is True",
    ),
    "a head of its own": ({**GEMMA2, "model_type": "gemma2", "tie_word_embeddings": False}, "its head is not the emb"),
    "a tied head": (
        {"model_type": "phi", "hidden_act": "gelu_new", "tie_word_embeddings": True, "rope_parameters": ROPE},
        "its head is the embedding",
    ),
    "another scale": ({**GEMMA2, "model_type": "gemma2", "query_pre_attn_scalar": 144}, "is scaled by 144, not 16"),
    "no cap": ({**GEMMA2, "model_type": "gemma2", "attn_logit_softcapping": None}, "it has no attn_logit_softcapping"),
    "a cap": ({**GEMMA2, "model_type": "gemma3_text"}, "attn_logit_softcapping is 50.0"),
    "no window": ({**GEMMA2, "model_type": "gemma2", "sliding_window": None}, "has no sliding_window"),
    "both ways": (
        {**GEMMA2, "model_type": "gemma2", "use_bidirectional_attention": True},
        "use_bidirectional_attention is True",
    ),
    "other layers": (
        {**WIDTH, "model_type": "smollm3", "rope_parameters": ROPE, "no_rope_layers": [0, 1]},
        "other layers than each fourth go without positions",
    ),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_a_model_that_llama_cpp_computes_otherwise_is_refused(name):
    config, wanted = UNLIKE[name]
    with pytest.raises(BundleError, match=wanted) as told:
        gguf_families.family_of(config)
    assert told.value.found.startswith(f"This {config['model_type']} model is not written as GGUF: ")


def test_a_model_that_llama_cpp_computes_alike_is_not():
    assert gguf_families.family_of({**GEMMA2, "model_type": "gemma2"}).architecture == "gemma2"
    wide = {**GEMMA2, "model_type": "gemma2", "num_hidden_layers": 46, "head_dim": 8}  # of Gemma 2's largest
    assert gguf_families.family_of(wide).architecture == "gemma2"
    assert gguf_families.family_of({"model_type": "mistral", "rope_parameters": ROPE}).architecture == "llama"


def test_a_context_that_is_cut_to_the_window_is_told_to_the_reader(language_bundle, tiny_decoder, tmp_path, folder):
    made = tmp_path / "made"
    made.mkdir()
    layout.write_model(language_bundle, tiny_decoder("mistral"), made)
    assert contents(gguf.GGUFReader(made / "model.gguf"))["llama.context_length"] == 24
    plain, told = ((one / "README.md").read_text("utf-8") for one in (folder, made))
    assert told.startswith(plain)
    assert told.removeprefix(plain).startswith("\n- Its context is 24 tokens, not 160: ")


def test_a_family_without_windows_is_told_as_long_as_its_window(tiny_decoder):
    """As long as that every layer sees all, which is what llama.cpp computes."""
    config = json.loads((tiny_decoder("mistral") / "config.json").read_text("utf-8"))
    assert config["sliding_window"] == 24
    assert gguf_families.sizes_of(config, gguf_families.FAMILIES["mistral"], 160).context == 24
    unused = {**config, "layer_types": ["full_attention"] * 2}
    assert gguf_families.sizes_of(unused, gguf_families.FAMILIES["mistral"], 160).context == 160


def test_a_refused_model_leaves_nothing(language_bundle, model, tmp_path):
    source = changed_model(model, tmp_path / "model", hidden_act="gelu")
    with pytest.raises(BundleError, match="its activation is gelu"):
        layout.write_model(language_bundle, source, tmp_path)
    with pytest.raises(BundleError, match=r"model\.layers\.1\.\S+ of this llama model is none that llama"):
        layout.write_model(language_bundle, changed_model(model, tmp_path / "shorter", num_hidden_layers=1), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "shorter"]


def test_a_bias_that_the_graph_of_the_family_has_not_is_refused(tmp_path):
    from edgetune.export.layouts.gguf_tensors import renamed_tensors
    from edgetune.export.stepwise.weights import Weight

    config = {**WIDTH, "model_type": "qwen3", "head_dim": 16, "vocab_size": 8, "rope_parameters": ROPE}
    found = {f"model.layers.0.self_attn.{part}_proj.bias": Weight(tmp_path, "F32", (64,), 0) for part in "qo"}
    with pytest.raises(BundleError, match=r"self_attn\.o_proj\.bias of this qwen3 model is none"):
        renamed_tensors(config, found, gguf)
    found.popitem()
    assert [one.name for one in renamed_tensors(config, found, gguf)] == ["blk.0.attn_q.bias"]


def test_llama_3s_long_waves_turn_slower():
    """Of waves of 6.3 to 19,869 tokens: those under 2,048 as before, those over 8,192 by 8, one between."""
    rope = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    found = rope_factors({"rope_parameters": rope}, 16)
    waves = 2 * np.pi * 10000.0 ** (np.arange(8) / 8)
    share = (8192 / waves[6] - 1) / 3
    assert waves[5] < 2048 < waves[6] < 8192 < waves[7]
    assert found.tolist() == pytest.approx([1, 1, 1, 1, 1, 1, 1 / ((1 - share) / 8 + share), 8])
    assert rope_factors({"rope_parameters": {**rope, "rope_type": "default"}}, 16) is None


@pytest.mark.parametrize(
    ("family", "old", "new"),
    [
        ("gpt2", "transformer.h.0.mlp.c_fc.weight", "blk.0.ffn_up.weight"),
        ("gemma", "model.layers.1.input_layernorm.weight", "blk.1.attn_norm.weight"),
        ("phi3", "model.layers.0.mlp.gate_up_proj.weight", "blk.0.ffn_up.weight"),
    ],
)
def test_weights_that_lie_otherwise(tiny_decoder, language_bundle, tmp_path, family, old, new):
    """GPT-2's matrices lie (in, out), Gemma's norms are told from one, Phi-3's two projections stay one."""
    layout.write_model(language_bundle, tiny_decoder(family), tmp_path)
    assert layout.check(tmp_path) == []
    values, wanted = tensors(gguf.GGUFReader(tmp_path / "model.gguf"))[new], weights(tiny_decoder(family))[old].read()
    assert np.array_equal(values, {"gpt2": wanted.T, "gemma": wanted + 1, "phi3": wanted}[family])


def as_bundle(bundle, folder, template=None, **changes):
    """A copy of a bundle with a chat template, another name or other facts of its spec."""
    import msgspec

    shutil.copytree(bundle.folder, folder)
    if template:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    name = changes.pop("name", bundle.manifest.name)
    spec = msgspec.structs.replace(bundle.manifest.generation, **changes)
    return Bundle(folder, msgspec.structs.replace(bundle.manifest, generation=spec, name=name))


def test_the_bundles_chat_template_and_all_ends_go_along(language_bundle, model, tmp_path):
    bundle, made = (
        as_bundle(language_bundle, tmp_path / "bundle", "{{ messages }}", eos_ids=[1, 2, 5]),
        tmp_path / "made",
    )
    made.mkdir()
    layout.write_model(bundle, model, made)
    said = contents(gguf.GGUFReader(made / "model.gguf"))
    assert said["tokenizer.chat_template"] == "{{ messages }}"
    assert [said[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")] == [2, 1, 5]


def test_a_model_without_an_end_is_refused(language_bundle, model, tmp_path):
    with pytest.raises(BundleError, match="No token ends an answer"):
        layout.write_model(as_bundle(language_bundle, tmp_path / "bundle", eos_ids=[]), model, tmp_path)


@pytest.mark.parametrize("name", ["My-Phi3-bot", "modern-bert"])
def test_a_name_that_llama_cpp_takes_for_a_rule_is_left_out(language_bundle, model, tmp_path, name):
    """It would strip spaces at tokens by it, and end over a token that is missing."""
    made = tmp_path / "made"
    made.mkdir()
    layout.write_model(as_bundle(language_bundle, tmp_path / "bundle", name=name), model, made)
    assert "general.name" not in contents(gguf.GGUFReader(made / "model.gguf"))


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


def quantized_bundle(bundle, target, *, bits, block, symmetric=False):
    """The tiny llama's bundle with its graph in few bits, and its work folder beside it."""
    shutil.copytree(bundle.folder, target)
    work = f"{bundle.folder.name}.work"
    shutil.copytree(bundle.folder.with_name(work), target.with_name(f"{target.name}.work"))
    quantize_decoder(
        bundle.folder / "model.onnx", target / "model.onnx", bits=bits, block=block, method="rtn", symmetric=symmetric,
        spec=bundle.manifest.generation,
    )  # fmt: skip
    return Bundle.open(target, verify=False)


@pytest.mark.parametrize(
    ("bits", "symmetric", "kind", "tolerance"), [(4, False, "Q4_1", 5e-4), (4, True, "Q4_0", 0), (8, True, "Q8_0", 0)]
)
def test_the_bundles_own_bits_are_the_files(language_bundle, model, tmp_path, bits, symmetric, kind, tolerance):
    """Levels and scales are carried over as they are; the least value of a block of Q4_1 is rounded to float16."""
    bundle = quantized_bundle(language_bundle, tmp_path / "few", bits=bits, block=32, symmetric=symmetric)
    files = write_layout(bundle, "gguf", tmp_path / "out", weights="bundle")
    assert files == ["Modelfile", "README.md", "model.gguf"]
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    merged = {
        one.name: one for one in renamed_tensors(json.loads((model / "config.json").read_text()), weights(model), gguf)
    }
    matrices = {name for name, one in merged.items() if len(one.shape) == 2}
    assert {one.name for one in reader.tensors} == set(merged)
    for one in reader.tensors:
        assert one.tensor_type.name == (kind if one.name in matrices else "F32"), one.name
        values = gguf.quants.dequantize(np.array(one.data), one.tensor_type)
        expected = merged[one.name].read()
        if one.name in matrices:
            blocks = nearest(merged[one.name].weight.read(), bits, 32, symmetric=symmetric)
            expected = merged[one.name].ordered(blocks.restored())
        largest = np.abs(expected).max()
        assert np.abs(values - expected).max() <= (tolerance * largest if one.name in matrices else 0), one.name
    said = contents(reader)
    assert said["general.file_type"] == gguf.LlamaFileType[f"MOSTLY_{kind}"]
    assert (tmp_path / "out" / "Modelfile").read_text() == "FROM ./model.gguf\nPARAMETER num_ctx 160\n"
    assert f"{len(matrices)} matrices in {kind}" in (tmp_path / "out" / "README.md").read_text()


def test_a_bundle_in_floats_has_no_bits_to_carry(language_bundle, tmp_path):
    with pytest.raises(BundleError, match="no quantized matrix") as caught:
        write_layout(language_bundle, "gguf", tmp_path / "out", weights="bundle")
    assert caught.value.action == "pack the floats: --weights float"
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_share_a_scale_over_128_weights_and_padded_ones_are_told_apart():
    rows = np.random.default_rng(0).normal(size=(6, 160)).astype(np.float32)
    wide, padded = nearest(rows, 4, 128), nearest(rows[:, :44], 4, 32)
    assert (type_name(wide), type_name(nearest(rows, 4, 16)), type_name(padded)) == ("Q4_1", "Q8_0", "F32")
    values = gguf.quants.dequantize(encoded(wide, lambda array: array, gguf), gguf.GGMLQuantizationType.Q4_1)
    assert values == pytest.approx(wide.restored(), abs=2e-3)
    assert np.array_equal(encoded(padded, lambda array: array, gguf), padded.restored())


def test_wide_blocks_of_8_bits_repeat_their_scale_and_those_with_zero_points_are_rounded_again():
    rows = np.random.default_rng(0).normal(size=(6, 160)).astype(np.float32)
    wide = nearest(rows, 8, 64)  # three blocks, the last of them half full
    skewed = Blocks(wide.levels - np.uint8(1), Grid(wide.grid.scales, wide.grid.zeros - 1, 8), 160)
    assert np.array_equal(skewed.restored(), wide.restored())
    kind = gguf.GGMLQuantizationType.Q8_0
    for blocks, most in ((wide, 0), (skewed, wide.grid.scales.max() / 2)):
        assert type_name(blocks) == "Q8_0"
        values = gguf.quants.dequantize(encoded(blocks, lambda array: array, gguf), kind)
        assert np.abs(values - wide.restored()).max() <= most


def test_symmetric_four_bits_have_the_bytes_of_ggml():
    rows = np.random.default_rng(0).integers(-8, 8, size=(4, 64)).astype(np.float32) * np.float32(0.25)
    rows[:, ::32] = -2.0
    ours = encoded(nearest(rows, 4, 32, symmetric=True), lambda array: array, gguf)
    assert np.array_equal(ours, gguf.quants.quantize(rows, gguf.GGMLQuantizationType.Q4_0))
