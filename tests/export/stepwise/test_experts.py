"""Stacked experts taken apart: the same products, from matrices that can be quantized."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.compress.gptq.coverage import read_coverage
from edgetune.compress.gptq.graph_file import open_graph, write_graph
from edgetune.compress.gptq.matrices import find_matrices
from edgetune.compress.gptq.rounding import nearest
from edgetune.compress.gptq.writer import write_matrix
from edgetune.compress.layers import tidy
from edgetune.export.stepwise.experts import part_experts
from edgetune.serve.session import open_session

EXPERTS, INPUTS, OUTPUTS = 3, 32, 48


def stacked_graph(path, *, read_whole=False):
    """Tokens sorted by their expert, `counts` of each, times that expert's matrix: as the exporter writes mixtures."""
    rng = np.random.default_rng(0)
    stacked = rng.normal(size=(EXPERTS, INPUTS, OUTPUTS)).astype(np.float32)
    pieces, products = [f"piece{n}" for n in range(EXPERTS)], [f"product{n}" for n in range(EXPERTS)]
    rows = [f"rows{n}" for n in range(EXPERTS)]
    nodes = [
        helper.make_node("Split", ["experts"], pieces, axis=0, num_outputs=EXPERTS),
        helper.make_node("Split", ["x", "counts"], rows, axis=0),
    ]
    for number in range(EXPERTS):
        nodes.append(helper.make_node("Squeeze", [pieces[number], "zero"], [f"matrix{number}"]))
        nodes.append(helper.make_node("MatMul", [rows[number], f"matrix{number}"], [products[number]]))
    nodes.append(helper.make_node("Concat", products, ["logits"], axis=0))
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    if read_whole:
        nodes.append(helper.make_node("ReduceSum", [pieces[0]], ["sum"]))
        outputs.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes,
        "mixture",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", INPUTS]),
            helper.make_tensor_value_info("counts", TensorProto.INT64, [EXPERTS]),
        ],
        outputs,
        [numpy_helper.from_array(stacked, "experts"), numpy_helper.from_array(np.zeros(1, np.int64), "zero")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path, stacked


def test_each_expert_becomes_a_matrix_of_its_own_in_any_bits(tmp_path):
    path, stacked = stacked_graph(tmp_path / "g.onnx")
    model = open_graph(path)
    assert part_experts(model) == EXPERTS
    write_graph(model, tmp_path / "parted.onnx")
    names = [one.name for one in find_matrices(model)]
    assert names == [f"experts.{number}" for number in range(EXPERTS)]
    feed = {"x": np.eye(INPUTS, dtype=np.float32), "counts": np.asarray([20, 0, 12])}  # nobody asks the second expert
    expected = open_session(path, provider="cpu", threads=1).run(["logits"], feed)[0]
    parted = open_session(tmp_path / "parted.onnx", provider="cpu", threads=1).run(["logits"], feed)[0]
    assert np.array_equal(parted, expected)
    assert np.array_equal(expected, np.concatenate([stacked[0][:20], stacked[2][20:]]))
    for one in find_matrices(model):
        write_matrix(model, one, nearest(one.rows(), 4, 32))
    tidy(model)
    write_graph(model, tmp_path / "few.onnx")
    coverage = read_coverage(tmp_path / "few.onnx")
    assert (len(coverage.quantized), coverage.left) == (EXPERTS, ())
    assert Counter(node.op_type for node in onnx.load(tmp_path / "few.onnx").graph.node)["MatMulNBits"] == EXPERTS
    few = open_session(tmp_path / "few.onnx", provider="cpu", threads=1).run(["logits"], feed)[0]
    meant = [nearest(np.ascontiguousarray(stacked[number].T), 4, 32).restored().T for number in (0, 2)]
    assert few == pytest.approx(np.concatenate([meant[0][:20], meant[1][20:]]), abs=2e-5)


def test_experts_that_something_else_reads_stay_together(tmp_path):
    path, _ = stacked_graph(tmp_path / "g.onnx", read_whole=True)
    model = open_graph(path)
    assert part_experts(model) == 0
    assert [(one.name, one.why_left) for one in find_matrices(model)] == [("experts", "of 3 dimensions")]
