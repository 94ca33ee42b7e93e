"""Quantized matrices in the graph: what ONNX Runtime computes from the bytes is what the levels mean."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.compress.gptq.graph_file import open_graph, write_graph
from edgetune.compress.gptq.matrices import find_matrices
from edgetune.compress.gptq.rounding import nearest
from edgetune.compress.gptq.stored import read_blocks
from edgetune.compress.gptq.writer import write_matrix
from edgetune.compress.layers import tidy
from edgetune.serve.session import open_session


def quantized(graph, target, *, bits, block=32, symmetric=False):
    """Every matrix of `graph` rounded to nearest into `target`; by name what it stands for then."""
    model = open_graph(graph)
    meant = {}
    for one in find_matrices(model):
        blocks = nearest(one.rows(), bits, block, symmetric=symmetric)
        meant[one.name] = blocks.restored()
        write_matrix(model, one, blocks)
    tidy(model)
    write_graph(model, target)
    return meant


def run(graph, **feed):
    return open_session(graph, provider="cpu", threads=1).run(["logits"], feed)[0]


def kinds(graph):
    return Counter(node.op_type for node in onnx.load(graph).graph.node)


PRODUCTS = {
    "MatMul": ([helper.make_node("MatMul", ["x", "w"], ["logits"])], True),
    "MatMul and Add": (
        [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Add", ["b", "product"], ["logits"])],
        True,
    ),
    "Gemm": ([helper.make_node("Gemm", ["x", "w", "b"], ["logits"], alpha=0.5, beta=2.0)], True),
    "Gemm transB": ([helper.make_node("Gemm", ["x", "w", "b"], ["logits"], transB=1)], False),
    "FusedMatMul transB": (
        [helper.make_node("FusedMatMul", ["x", "w"], ["logits"], transB=1, alpha=3.0, domain="com.microsoft")],
        False,
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("width", [64, 44])
def test_a_product_is_that_of_the_levels(tmp_path, product_graph, name, bits, width):
    nodes, is_transposed = PRODUCTS[name]
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(40, width)).astype(np.float32)
    bias = rng.normal(size=40).astype(np.float32)
    constants = {"w": np.ascontiguousarray(rows.T) if is_transposed else rows, "b": bias}
    graph = product_graph(tmp_path / "g.onnx", nodes, ["rows", width], constants)
    meant = quantized(graph, tmp_path / "q.onnx", bits=bits)["w"]
    x = np.eye(width, dtype=np.float32)  # one number in a block of activations is rounded to int8 without loss
    factor, shift = {"Gemm": (0.5, 2.0), "FusedMatMul transB": (3.0, 0.0), "MatMul": (1.0, 0.0)}.get(name, (1.0, 1.0))
    assert run(tmp_path / "q.onnx", x=x) == pytest.approx(factor * meant.T + shift * bias, abs=2e-5 * factor)
    # Three times a value of float16 is none: those scales stay float32.
    assert kinds(tmp_path / "q.onnx") == {"MatMulNBits": 1, **({} if factor == 3 else {"Cast": 1})}
    stored = {one.name for one in onnx.load(tmp_path / "q.onnx").graph.initializer}
    assert "w" not in stored
    assert (f"w.int{bits}.zeros" in stored) == (bits == 4)  # of 8 bits all are in the middle
    node = onnx.load(tmp_path / "q.onnx").graph.node[-1]
    assert {one.name: one.i for one in node.attribute} == {
        "K": width,
        "N": 40,
        "accuracy_level": 4,
        "bits": bits,
        "block_size": 32,
    }


def tied_graph(path, width, vocabulary=50):
    """`logits = (rows of the embedding) @ embedding.T`."""
    embedding = np.random.default_rng(3).normal(size=(vocabulary, width)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["w", "input_ids"], ["rows"]),
            helper.make_node("Transpose", ["w"], ["head"], perm=[1, 0]),
            helper.make_node("MatMul", ["rows", "head"], ["logits"]),
        ],
        "tied",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(embedding, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("width", "block"), [(64, 32), (96, 32), (48, 16), (128, 64), (32, 32)])
def test_a_tied_head_and_its_embedding_read_one_copy(tmp_path, bits, width, block):
    """Widths of one and of three blocks among them, where four-bit zero points do not fill their bytes."""
    graph = tied_graph(tmp_path / "g.onnx", width)
    target = tmp_path / "q.onnx"
    meant = quantized(graph, target, bits=bits, block=block)["w"]
    ids = np.arange(50)[None, :]
    session = open_session(target, provider="cpu", threads=1)
    rows, logits = session.run(["rows", "logits"], {"input_ids": ids})
    assert rows[0] == pytest.approx(meant, abs=1e-6)
    # The kernel rounds the activations to int8, by block.
    assert np.abs(logits[0] - meant @ meant.T).max() < 0.02 * np.abs(meant @ meant.T).max()
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(target).graph.initializer}
    assert stored[f"w.int{bits}"].nbytes == 50 * width * bits // 8
    assert stored[f"w.int{bits}.scales"].dtype == np.float16
    ends = ("", ".rows_shape", ".scales", *([".zeros"] if bits == 4 else []))
    assert sorted(stored) == [f"w.int{bits}{end}" for end in ends]
    assert kinds(target) == {"MatMulNBits": 1, "GatherBlockQuantized": 1, "Reshape": 1, "Cast": 1}


@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_are_read_back_as_they_were_written(tmp_path, symmetric):
    graph = tied_graph(tmp_path / "g.onnx", 96)
    meant = quantized(graph, tmp_path / "q.onnx", bits=4, symmetric=symmetric)["w"]
    ((name, blocks),) = read_blocks(tmp_path / "q.onnx")
    assert (name, blocks.grid.is_symmetric) == ("w.int4", symmetric)
    assert np.array_equal(blocks.restored(), meant)
    rows = open_session(tmp_path / "q.onnx", provider="cpu", threads=1).run(["rows"], {"input_ids": [list(range(50))]})
    assert rows[0][0] == pytest.approx(meant, abs=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_an_embedding_of_its_own_needs_no_reshape(tmp_path, bits):
    graph = tied_graph(tmp_path / "g.onnx", 64)
    model = onnx.load(graph)
    del model.graph.node[1:]
    del model.graph.output[0]
    model.graph.node[0].output[0] = "logits"
    model.graph.output[0].name = "logits"
    onnx.save(model, graph)
    meant = quantized(graph, tmp_path / "q.onnx", bits=bits)["w"]
    assert run(tmp_path / "q.onnx", input_ids=np.asarray([[7, 3]]))[0] == pytest.approx(meant[[7, 3]], abs=1e-6)
    assert kinds(tmp_path / "q.onnx") == {"GatherBlockQuantized": 1, "Cast": 1}
