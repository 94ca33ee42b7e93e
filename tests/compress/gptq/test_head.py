"""The head is found, and the cut before it taken out: every position's logits are those of the shorter text's last."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from edgetune.compress.gptq.graph_file import open_graph
from edgetune.compress.gptq.head import head_product, write_all_positions
from edgetune.compress.gptq.prefill import prefill_feed, starting_past
from edgetune.serve.errors import CompressError
from edgetune.serve.session import open_session


def logits(graph, ids, spec):
    session = open_session(graph, provider="cpu", threads=1)
    return session.run(["logits"], prefill_feed(session, ids, spec, starting_past(graph, spec)))[0]


def test_all_positions_answer_as_each_does_when_it_is_the_last(tmp_path, toy_graph, toy_spec, toy_sequences):
    write_all_positions(toy_graph, tmp_path / "all.onnx")
    ids = toy_sequences[0]
    found = logits(tmp_path / "all.onnx", ids, toy_spec)
    assert found.shape == (1, len(ids), toy_spec.vocabulary)
    for place in (0, 3, len(ids) - 1):
        last = logits(toy_graph, ids[: place + 1], toy_spec)
        assert last.shape == (1, 1, toy_spec.vocabulary)
        assert found[0, place] == pytest.approx(last[0, 0], abs=1e-5)
    assert np.ptp(found[0], axis=0).max() > 0.1


def test_a_graph_without_the_cut_stays_as_it_is(tmp_path, write_toy, toy_spec, toy_sequences):
    graph = write_toy(tmp_path / "full.onnx", full_logits=True)
    write_all_positions(graph, tmp_path / "all.onnx")
    ids = toy_sequences[1]
    assert (logits(tmp_path / "all.onnx", ids, toy_spec) == logits(graph, ids, toy_spec)).all()


def test_the_head_is_found_behind_a_soft_cap(tmp_path, product_graph):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw"], name="head"),
        helper.make_node("Div", ["raw", "cap"], ["small"]),
        helper.make_node("Tanh", ["small"], ["bent"]),
        helper.make_node("Mul", ["cap", "bent"], ["logits"]),
    ]
    constants = {"w": np.ones((32, 48), np.float32), "cap": np.asarray(30, np.float32)}
    graph = product_graph(tmp_path / "g.onnx", nodes, ["rows", 32], constants)
    assert head_product(open_graph(graph)).name == "head"


def test_a_graph_without_a_head_is_refused(tmp_path, product_graph):
    graph = product_graph(tmp_path / "g.onnx", helper.make_node("Relu", ["x"], ["logits"]), ["rows", 32], {})
    with pytest.raises(CompressError, match="no product with a weight matrix"):
        head_product(open_graph(graph))


def test_a_graph_without_logits_is_refused(tmp_path, product_graph):
    graph = product_graph(tmp_path / "g.onnx", helper.make_node("Relu", ["x"], ["logits"]), ["rows", 32], {})
    model = open_graph(graph)
    model.graph.outputs[0].name = "scores"
    with pytest.raises(CompressError, match="outputs \\['scores'\\]"):
        head_product(model)
