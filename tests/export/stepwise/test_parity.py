"""The parity gate of decoders: it passes what is right in every family, and finds each way of being wrong."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from transformers import AutoTokenizer

from edgetune.export.stepwise.export import export_generation, spread
from edgetune.export.stepwise.graph import DecoderGraph, open_decoder
from edgetune.export.stepwise.greedy import GreedyLoop, left_padded
from edgetune.export.stepwise.parity import check_decoder, check_token_ids
from edgetune.serve.errors import BundleDamaged, ExportError, ParityError
from edgetune.serve.stepwise.bound import LOGITS_FROM
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.tune.training.progress import Silent

# The names that tests/export/conftest.py has models for, with the profile that is proven with every change; an export
# takes five seconds and more, so all else is long. Llama's batches are what the other tests here are about.
FAMILIES = {
    "llama": "one", "qwen3": "any", "gemma2": "", "gemma3": "", "phi": "", "phi3": "", "gpt2": "",
    "qwen2": "", "gemma": "", "smollm3": "", "mistral": "", "gpt_neox": "",
    "multi_query": "", "gemma_mqa": "", "dynamic_ntk": "", "longrope": "any",
}  # fmt: skip


def profiles():
    """Every family with every profile, but one of some families long."""
    return [
        pytest.param(
            family, profile == "one", id=f"{family}-{profile}", marks=[] if profile == quick else [pytest.mark.long]
        )
        for family, quick in FAMILIES.items()
        for profile in ("any", "one")
    ]


class Spoken(Silent):
    """Keeps what a stage says."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def llama(tiny_decoder):
    folder = tiny_decoder("llama")
    return open_decoder(folder), AutoTokenizer.from_pretrained(folder)


def changed(graph, folder, edit):
    """The graph's file with `edit` made to it, as a graph of its own."""
    model = onnx.load(str(graph.path))
    edit(model.graph)
    onnx.save(model, str(folder / "model.onnx"))
    return dataclasses.replace(graph, path=folder / "model.onnx")


def test_padding_is_on_the_left():
    ids, mask = left_padded([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_right_graph_passes(llama_graph, llama, prompts):
    difference = check_decoder(llama_graph, *llama, prompts, tokens=64)
    assert 0 < difference < 1e-3


def test_the_models_settings_are_left_as_they_were(llama_graph, llama, prompts):
    model, tokenizer = llama
    before = model.generation_config
    check_decoder(llama_graph, model, tokenizer, prompts[:1], tokens=2)
    assert model.generation_config is before


@pytest.mark.parametrize("batch_one", [False, True], ids=["any", "one"])
def test_the_runtime_gives_the_tokens_that_were_proven(decoder_graph, llama, prompts, batch_one):
    """The plain loop of the gate, whose tokens are `generate`'s, and the shipped runtime: the same ids."""
    tokenizer = llama[1]
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    graph = decoder_graph("llama", batch_one=batch_one)
    loop = GreedyLoop(graph.path, graph.spec)
    proven = [loop.generate([row], 64)[0] for row in rows] if batch_one else loop.generate(rows, 64)
    endless = msgspec.structs.replace(graph.spec, eos_ids=[])
    assert Decoder(graph.path, endless, threads=1).generate_ids(rows, Sampling(max_tokens=64)) == proven


def test_a_weight_that_differs_is_found(llama_graph, llama, tmp_path, prompts):
    def edit(graph):
        tensor = next(one for one in graph.initializer if list(one.dims) == [64, 32])
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))

    with pytest.raises(ParityError, match="prompt 0 alone: logits differ by") as told:
        check_decoder(changed(llama_graph, tmp_path, edit), *llama, prompts, tokens=4)
    assert "in a left-padded batch" in str(told.value) or "and " in str(told.value)


def test_a_lost_mask_is_found_by_the_padded_batch_alone(llama_graph, llama, tmp_path, prompts):
    """The graph reads a mask of ones: right alone, wrong beside a longer row."""

    def edit(graph):
        ones = onnx.helper.make_node("Sub", ["attention_mask", "attention_mask"], ["mask_zeros"])
        filled = onnx.helper.make_node("Add", ["mask_zeros", "mask_one"], ["mask_ones"])
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == "attention_mask":
                    node.input[place] = "mask_ones"
        graph.initializer.append(numpy_helper.from_array(np.array(1, dtype=np.int64), "mask_one"))
        graph.node.insert(0, filled)
        graph.node.insert(0, ones)

    with pytest.raises(ParityError, match="prompt 0 in a left-padded batch: logits differ by") as told:
        check_decoder(changed(llama_graph, tmp_path, edit), *llama, prompts, tokens=4)
    assert "alone" not in told.value.found


def test_positions_that_are_not_read_are_found(llama_graph, llama, tmp_path, prompts):
    """Every token at position 0: the shortest prompt may pass, the others must not."""

    def edit(graph):
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == "position_ids":
                    node.input[place] = "no_positions"
        graph.node.insert(0, onnx.helper.make_node("Sub", ["position_ids", "position_ids"], ["no_positions"]))

    with pytest.raises(ParityError, match="logits differ by"):
        check_decoder(changed(llama_graph, tmp_path, edit), *llama, prompts, tokens=4)


def test_a_cache_that_goes_wrong_later_is_found(llama_graph, llama, tmp_path, prompts):
    """The present of one layer negated: a first step alone is right, the next is not."""

    def edit(graph):
        name = "output.past_key_values.layers.1.values"
        node = next(one for one in graph.node if name in one.output)
        node.output[list(node.output).index(name)] = "true_values"
        for other in graph.node:
            for place, one in enumerate(other.input):
                if one == name:
                    other.input[place] = "true_values"
        graph.node.append(onnx.helper.make_node("Neg", ["true_values"], [name]))

    with pytest.raises(ParityError, match="with half of it in the cache"):
        check_decoder(changed(llama_graph, tmp_path, edit), *llama, prompts, tokens=4)


def test_a_spec_that_names_other_tensors_is_found(llama_graph, llama, prompts):
    other = dataclasses.replace(llama_graph, spec=msgspec.structs.replace(llama_graph.spec, layers=3))
    with pytest.raises(ParityError, match=r"not those of its spec: .*layers\.2"):
        check_decoder(other, *llama, prompts)


def test_a_context_without_room_for_the_proof_is_refused(llama_graph, llama, prompts):
    with pytest.raises(ParityError, match="takes 160 tokens"):
        check_decoder(llama_graph, *llama, prompts, tokens=159)


def test_tokenizers_must_agree(tiny_decoder, llama, tmp_path, prompts):
    saved = tiny_decoder("llama") / "tokenizer.json"
    check_token_ids(saved, llama[1], [*prompts, ""])
    from tokenizers import Tokenizer, processors

    other = Tokenizer.from_file(str(saved))
    other.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    other.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ParityError, match="other ids for 4 of 4 texts, such as 'card'"):
        check_token_ids(tmp_path / "tokenizer.json", llama[1], prompts)


def test_texts_for_the_proof_are_of_unlike_length():
    texts = ["x" * size for size in (3, 9, 1, 4, 4, 7, 2)] + ["", "  "]
    assert [len(text) for text in spread(texts)] == [1, 2, 4, 9]
    with pytest.raises(ParityError, match="no text"):
        spread(["", " "])


@pytest.fixture
def exported(llama_graph, monkeypatch):
    """Lets the stage's export give the graph that there is already, and fail with fusions where `error` is set."""

    class Exported:
        error, asked = None, []

        def __call__(self, model_folder, folder, *, batch_one, fused, **settings):
            self.asked = [*self.asked, (model_folder, batch_one, fused)]
            if fused and self.error:
                raise self.error
            folder.mkdir(exist_ok=True)
            path = Path(shutil.copy(llama_graph.path, folder))
            return dataclasses.replace(llama_graph, path=path, fused=fused)

    monkeypatch.setattr("edgetune.export.stepwise.export.export_decoder", one := Exported())
    return one


def test_the_stage_proves_and_keeps_the_facts(tiny_decoder, exported, tmp_path, prompts):
    spoken = Spoken()
    graph = export_generation(tiny_decoder("llama"), prompts, tmp_path, spoken)
    assert exported.asked == [(tiny_decoder("llama"), False, True)]
    assert DecoderGraph.open(tmp_path) == graph
    assert graph.fused
    assert graph.max_abs_diff is not None
    assert graph.max_abs_diff < 1e-3
    assert spoken.lines[0] == "tokenizer: the same ids at run time on all 4 texts"
    assert spoken.lines[1].startswith("graph: 64 tokens of 4 prompts equal to generate's, first logits within ")


@pytest.mark.parametrize("error", [ExportError("No fusion."), BundleDamaged("No session.")])
def test_a_graph_that_fails_with_fusions_is_made_without_them(tiny_decoder, exported, tmp_path, prompts, error):
    exported.error, spoken = error, Spoken()
    graph = export_generation(tiny_decoder("llama"), prompts, tmp_path, spoken)
    assert [fused for _, _, fused in exported.asked] == [True, False]
    assert (DecoderGraph.open(tmp_path), graph.fused) == (graph, False)
    assert spoken.lines[1] == f"graph: {error.found} It is made again without fusions, which answers slower."
    with pytest.raises(type(error), match=error.found):
        export_generation(tiny_decoder("llama"), prompts, tmp_path / "one", spoken, batch_one=True)
    assert exported.asked[2:] == [(tiny_decoder("llama"), True, True)]
    assert not (tmp_path / "one").exists()


@pytest.mark.long  # three exports
def test_a_graph_whose_fusions_fail_is_made_without_them(tiny_decoder, tmp_path, monkeypatch, prompts):
    from transformers.exporters import exporter_onnx

    def broken(model, provider):
        raise IndexError("no such node")

    monkeypatch.setattr(exporter_onnx, "fuse_for_onnxruntime", broken)
    spoken = Spoken()
    graph = export_generation(tiny_decoder("llama"), prompts, tmp_path, spoken)
    assert not graph.fused
    assert "IndexError: no such node" in spoken.lines[1]
    assert "without fusions" in spoken.lines[1]
    with pytest.raises(Exception, match="no such node"):
        export_generation(tiny_decoder("llama"), prompts, tmp_path / "one", spoken, batch_one=True)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "batch_one"), profiles())
def test_a_family_goes_all_the_way(tiny_decoder, decoder_graph, family, batch_one, record_property, prompts):
    folder = tiny_decoder(family)
    graph = decoder_graph(family, batch_one=batch_one)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # The shortest, one of many scripts, and one that is longer than the windows of the families that have one.
    texts = [prompts[0], prompts[-1], " ".join(prompts)]
    difference = check_decoder(graph, open_decoder(folder), tokenizer, texts, tokens=64)
    record_property("max_abs_diff", difference)
    record_property("nodes", graph.nodes)
    assert difference < 1e-3
    # LongRoPE is taken for its original length, beyond which a cache could not be used any more.
    context = 80 if family == "longrope" else 160
    assert (graph.spec.layers, graph.spec.context_tokens, graph.spec.eos_ids) == (2, context, [2])
    heads = {"gpt2": 4, "gpt_neox": 4, "multi_query": 1, "gemma_mqa": 1}
    assert graph.spec.kv_heads == heads.get(family, 2)
    session = onnxruntime.InferenceSession(str(graph.path), providers=["CPUExecutionProvider"])
    # A cut whose start can be fed leaves the number of positions open.
    movable = LOGITS_FROM in {value.name for value in session.get_overridable_initializers()}
    positions = "last_tokens" if movable else 1
    assert session.get_outputs()[0].shape == [1 if batch_one else "batch", positions, graph.spec.vocabulary]
    assert graph.spec.in_place or not movable
