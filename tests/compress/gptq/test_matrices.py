"""Which matrices of a graph are found, how they lie, and why one stays."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import helper

from edgetune.compress.gptq.graph_file import open_graph
from edgetune.compress.gptq.matrices import find_matrices


def found_in(path):
    return {one.name: one for one in find_matrices(open_graph(path))}


def test_every_matrix_of_a_decoder_is_found_as_it_lies(toy_graph):
    found = found_in(toy_graph)
    assert {name: one.why_left for name, one in found.items()} == dict.fromkeys(
        ["embed", "positions", "mix", "up", "down"], ""
    )
    ways = {name: (len(one.products), len(one.lookups), one.is_transposed) for name, one in found.items()}
    assert ways == {
        "embed": (1, 1, False),  # head and embedding at once
        "positions": (0, 1, False),
        "mix": (1, 0, True),
        "up": (1, 0, True),
        "down": (1, 0, False),  # transB
    }
    assert found["up"].rows().shape == (160, 64)
    assert found["down"].rows().shape == (64, 160)
    assert found["embed"].parameters == 96 * 64
    assert found["embed"].stored_bytes == 96 * 64 * 4


def test_a_bias_belongs_to_its_product_wherever_it_is_added(toy_graph):
    found = found_in(toy_graph)
    products = {name: one.products[0] for name, one in found.items() if one.products}
    assert {name: one.tail.op_type for name, one in products.items()} == {
        "mix": "Add",
        "up": "Gemm",
        "down": "Gemm",
        "embed": "MatMul",
    }
    assert {name: None if one.bias is None else one.bias.shape for name, one in products.items()} == {
        "mix": (64,),
        "up": (160,),
        "down": (64,),
        "embed": None,
    }


def test_factors_of_a_gemm_are_read(tmp_path, product_graph):
    node = helper.make_node("Gemm", ["x", "w", "b"], ["logits"], alpha=0.5, beta=3.0)
    constants = {"w": np.ones((32, 16), np.float32), "b": np.full((1, 16), 2, np.float32)}
    (product,) = found_in(product_graph(tmp_path / "g.onnx", node, ["rows", 32], constants))["w"].products
    assert product.factor == 0.5
    assert product.bias.tolist() == [6.0] * 16


@pytest.mark.parametrize(
    ("node", "shape", "why"),
    [
        (helper.make_node("MatMul", ["w", "x"], ["logits"]), (32, 32), "not the right side of a MatMul"),
        (helper.make_node("Gemm", ["x", "w"], ["logits"], transA=1), (32, 32), "its Gemm transposes the activation"),
        (helper.make_node("MatMul", ["x", "w"], ["logits"]), (2, 32, 32), "of 3 dimensions"),
        (helper.make_node("Add", ["x", "w"], ["logits"]), (32, 32), "read by Add"),
        (helper.make_node("MatMul", ["x", "w"], ["logits"]), (32, 8), "of 32x8, smaller than a block"),
        (helper.make_node("Gemm", ["x", "w", "x"], ["logits"]), (32, 32), "its Gemm adds more than a constant row"),
    ],
)
def test_what_cannot_be_quantized_says_why(tmp_path, product_graph, node, shape, why):
    constants = {"w": np.ones(shape, np.float32)}
    found = found_in(product_graph(tmp_path / "g.onnx", node, [32, 32], constants))
    assert {name: one.why_left for name, one in found.items()} == {"w": why}


def test_half_floats_and_columns_looked_up_stay(tmp_path, product_graph):
    nodes = [
        helper.make_node("Cast", ["half"], ["single"], to=1),
        helper.make_node("Gather", ["table", "place"], ["column"], axis=1),
        helper.make_node("Add", ["single", "column"], ["sum"]),
        helper.make_node("Add", ["sum", "x"], ["logits"]),
    ]
    constants = {
        "half": np.ones((32, 32), np.float16),
        "table": np.ones((32, 32), np.float32),
        "place": np.arange(32),
    }
    found = found_in(product_graph(tmp_path / "g.onnx", nodes, [32, 32], constants))
    assert found["half"].why_left == "stored as FLOAT16"
    assert found["table"].why_left == "its columns are looked up, not its rows"


def test_a_matrix_used_both_ways_stays(tmp_path, product_graph):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["first"]),
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["first", "turned"], ["logits"]),
    ]
    graph = product_graph(tmp_path / "g.onnx", nodes, [32, 32], {"w": np.ones((32, 32), np.float32)})
    assert found_in(graph)["w"].why_left == "multiplied both as it is and transposed"


@pytest.mark.parametrize("flip", [False, True])
def test_a_fused_product_of_the_tied_head_is_the_embedding(tmp_path, product_graph, flip):
    """FusedMatMul with transB, as the exporter's fusions leave the head; and its factor."""
    nodes = [helper.make_node("FusedMatMul", ["x", "w"], ["logits"], domain="com.microsoft", transB=1, alpha=2.0)]
    if flip:
        nodes.insert(0, helper.make_node("Identity", ["w"], ["same"]))
        nodes[1].input[1] = "same"
    one = found_in(product_graph(tmp_path / "g.onnx", nodes, ["rows", 32], {"w": np.ones((48, 32), np.float32)}))["w"]
    assert (one.why_left, one.is_transposed, one.rows().shape) == ("", False, (48, 32))
    assert one.products[0].factor == 2.0


@pytest.mark.parametrize(
    ("shape", "is_looked_up", "asked", "block"),
    [
        ((32, 172), False, 32, 32),  # a product pads its last block
        ((32, 172), True, 32, None),  # 172 = 4 x 43
        ((32, 172), False, 128, 64),  # by an eighth at most: 256 columns would hold a third of zeros
        ((32, 160), False, 128, 32),
        ((32, 48), True, 32, 16),
        ((32, 64), True, 128, 64),
        ((32, 64), False, 128, 64),
        ((32, 64), True, 32, 32),
    ],
)
def test_the_block_fits_the_width(shape, is_looked_up, asked, block):
    from edgetune.compress.gptq.matrices import Matrix

    tensor = onnx_ir.tensor(np.zeros(shape, np.float32))
    value = onnx_ir.Value(name="w", const_value=tensor, shape=tensor.shape)
    assert Matrix(value, False, (), ("lookup",) if is_looked_up else ()).block_for(asked) == block
