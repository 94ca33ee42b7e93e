"""One graph for prefill and decoding: what is in its file, what its spec says, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil

import onnx
import pytest
from transformers.exporters import OnnxExporter

from edgetune.export.stepwise import graph as module
from edgetune.export.stepwise.graph import DecoderGraph, export_decoder, open_decoder, refuse_grouped_attention
from edgetune.serve.errors import ExportError, ModelError, WorkError
from edgetune.serve.stepwise.spec import GenerationSpec

SPEC = GenerationSpec(
    layers=2,
    kv_heads=2,
    head_dim=8,
    vocabulary=288,
    context_tokens=160,
    eos_ids=[2],
    bos_id=1,
    pad_id=0,
    in_place=True,
)


def shapes(values):
    return {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim] for value in values
    }


def test_the_graph_is_one_file_that_names_its_open_sizes(llama_graph):
    past, present = [["batch", 2, f"{tokens}_tokens", 8] for tokens in ("past", "total")]
    graph = onnx.load(str(llama_graph.path)).graph
    assert [path.name for path in llama_graph.path.parent.iterdir()] == ["model.onnx"]
    assert shapes(graph.input) == {
        "input_ids": ["batch", "tokens"],
        "attention_mask": ["batch", "total_tokens"],
        "position_ids": ["batch", "tokens"],
        **dict.fromkeys(SPEC.past_names(), past),
        "logits_from": [1],
    }
    assert shapes(graph.output) == {
        "logits": ["batch", "last_tokens", 288],
        **dict.fromkeys(SPEC.present_names(), present),
    }
    assert llama_graph == DecoderGraph(llama_graph.path, SPEC, len(graph.node))
    assert [node.op_type for node in graph.node].count("GroupQueryAttention") == SPEC.layers
    assert "RotaryEmbedding" in {node.op_type for node in graph.node}, "the exporter's fusions were kept"


def test_nothing_of_the_sources_is_in_the_file(llama_graph):
    model = onnx.load(str(llama_graph.path))
    assert not model.metadata_props
    assert not model.doc_string
    assert not model.graph.value_info
    assert not [node.name for node in model.graph.node if node.metadata_props or node.doc_string]
    content = llama_graph.path.read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content


def test_a_tied_embedding_is_written_once(llama_graph):
    tensors = onnx.load(str(llama_graph.path)).graph.initializer
    assert [list(one.dims) for one in tensors if 288 in one.dims] == [[288, 32]]


def test_its_facts_open_again(llama_graph, tmp_path):
    shutil.copyfile(llama_graph.path, tmp_path / "model.onnx")
    proven = dataclasses.replace(llama_graph, path=tmp_path / "model.onnx", max_abs_diff=1e-6)
    proven.save(tmp_path)
    assert DecoderGraph.open(tmp_path) == proven
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoder.json", "model.onnx"]


def test_a_folder_without_facts_is_refused(tmp_path):
    with pytest.raises(WorkError, match="holds no decoder graph"):
        DecoderGraph.open(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="cannot be opened"):
        open_decoder(tmp_path)


def test_an_exporter_that_fails_is_told_in_one_line(tiny_decoder, tmp_path, monkeypatch):
    def broken(self, *arguments, **options):
        raise NotImplementedError("no decomposition for aten.bogus\nlong story")

    monkeypatch.setattr(OnnxExporter, "export", broken)
    with pytest.raises(ExportError, match="a decoder graph of a llama model: NotImplementedError: no dec") as told:
        export_decoder(tiny_decoder("llama"), tmp_path / "graph")
    assert "long story" not in str(told.value)
    assert not (tmp_path / "graph").exists()


def test_weights_beyond_the_limit_lie_in_a_file_of_their_own(llama_graph, tmp_path, monkeypatch):
    import onnx_ir

    monkeypatch.setattr(module, "LARGEST_GRAPH_BYTES", 1000)
    path = module._save(onnx_ir.load(str(llama_graph.path)), tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert path.stat().st_size < 0.5 * llama_graph.path.stat().st_size
    small = onnx.load(str(path))
    whole = onnx.load(str(llama_graph.path))
    for one, other in zip(small.graph.initializer, whole.graph.initializer, strict=True):
        assert (onnx.numpy_helper.to_array(one) == onnx.numpy_helper.to_array(other)).all()


@pytest.mark.slow
def test_the_graph_for_one_row_is_fused_into_grouped_query_attention(decoder_graph, llama_graph):
    one = decoder_graph("llama", batch_one=True)
    graph = onnx.load(str(one.path)).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("GroupQueryAttention") == 2
    assert one.nodes == len(operators)
    assert one.spec.in_place
    assert one.spec.batch_one
    assert shapes(graph.input)["input_ids"] == [1, "tokens"]
    assert shapes(graph.output)["logits"] == [1, "last_tokens", 288]

    import onnx_ir

    with pytest.raises(ExportError, match="fused 2 attentions into GroupQueryAttention in a graph for batches"):
        refuse_grouped_attention(onnx_ir.load(str(one.path)))


@pytest.mark.long  # an export of its own, in a form that no stage asks for
def test_a_graph_for_measuring_gives_all_logits(tiny_decoder, tmp_path):
    full = export_decoder(tiny_decoder("llama"), tmp_path, full_logits=True)
    assert full.full_logits
    assert shapes(onnx.load(str(full.path)).graph.output)["logits"] == ["batch", "tokens", 288]
