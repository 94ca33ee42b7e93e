"""Dynamic int8 on weights for which the result is known by hand, and on graphs of real classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetune.compress.int8 import quantize_columns
from edgetune.compress.material import Material
from edgetune.compress.schemes import fused, int8_dynamic
from edgetune.tune.data.dataset import Part
from edgetune.tune.training.progress import Silent
from tests.compress.marks import marks_of

# The scheme looks at no more of it than where the graph will run.
MATERIAL = Material(None, Part((), ()), Part((), ()), (), "cpu", "cpu", 0, Silent())  # type: ignore[arg-type]
# Integers up to 127 are their own int8 at scale 1, and 0 to 255 their own uint8: products come out exact.
WEIGHT = np.array([[127, -127, 127], [1, 2, -3], [0, 50, 100], [-4, 5, 6]], np.float32)
X = np.array([[0, 255, 3, 1], [7, 0, 9, 200]], np.float32)
BIAS = np.array([0.5, -1000, 3], np.float32)


def save_graph(
    path: Path,
    nodes: Sequence[Any],
    constants: dict[str, NDArray[Any]],
    source: tuple[str, int, list[Any]],
    columns: int,
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "known",
        [helper.make_tensor_value_info(*source)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*source[2][:-1], columns])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def run(path: Path, feed: NDArray[Any], name: str = "x") -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(None, {name: feed})[0]
    return answer


def nodes_in(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


ROWS = ("x", TensorProto.FLOAT, ["rows", 4])


@pytest.mark.parametrize("form", ["matmul", "matmul_add", "add_matmul", "gemm", "gemm_turned"])
def test_each_form_of_a_linear_layer_is_one_product_with_its_bias_in_it(tmp_path: Path, form: str) -> None:
    make = helper.make_node
    nodes = {
        "matmul": [make("MatMul", ["x", "w"], ["y"])],
        "matmul_add": [make("MatMul", ["x", "w"], ["p"]), make("Add", ["p", "b"], ["y"])],
        "add_matmul": [make("MatMul", ["x", "w"], ["p"]), make("Add", ["b", "p"], ["y"])],
        "gemm": [make("Gemm", ["x", "w", "b"], ["y"])],
        "gemm_turned": [make("Gemm", ["x", "w", "b"], ["y"], transB=1)],
    }[form]
    weight = np.ascontiguousarray(WEIGHT.T) if form == "gemm_turned" else WEIGHT
    constants = {"w": weight} | ({} if form == "matmul" else {"b": BIAS})
    graph = save_graph(tmp_path / "g.onnx", nodes, constants, ROWS, 3)
    target = tmp_path / "int8.onnx"
    assert int8_dynamic.compress(graph, target, MATERIAL).endswith("1 linear layers, 0 attentions, 0 tables")
    assert nodes_in(target) == ["DynamicQuantizeMatMul"]
    assert run(target, X) == pytest.approx(X @ WEIGHT + (0 if form == "matmul" else BIAS), abs=1e-2)


def test_a_bias_inside_an_activation_or_a_norm_goes_into_the_product(tmp_path: Path) -> None:
    make = helper.make_node
    norm = ["p", "skip", "ones", "zeros", "b"]
    graph = save_graph(
        tmp_path / "g.onnx",
        [
            make("MatMul", ["x", "w"], ["p0"]),
            make("BiasGelu", ["p0", "b"], ["skip"], domain="com.microsoft"),
            make("MatMul", ["x", "w"], ["p"]),
            make("SkipLayerNormalization", norm, ["y"], domain="com.microsoft", epsilon=1e-5),
        ],
        {"w": WEIGHT, "b": BIAS, "ones": np.ones(3, np.float32), "zeros": np.zeros(3, np.float32)},
        ROWS,
        3,
    )
    int8_dynamic.compress(graph, tmp_path / "int8.onnx", MATERIAL)
    assert Counter(nodes_in(tmp_path / "int8.onnx")) == {
        "DynamicQuantizeMatMul": 2, "FastGelu": 1, "SkipLayerNormalization": 1,
    }  # fmt: skip
    assert run(tmp_path / "int8.onnx", X) == pytest.approx(run(graph, X), abs=1e-3)
    # The matrix that both products read is kept once.
    assert [tensor.name for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer].count("w.int8") == 1


def test_a_bias_that_is_no_row_stays_outside(tmp_path: Path) -> None:
    make = helper.make_node
    nodes = [make("MatMul", ["x", "w"], ["p"]), make("Add", ["p", "b"], ["y"])]
    graph = save_graph(tmp_path / "g.onnx", nodes, {"w": WEIGHT, "b": np.ones((2, 3), np.float32)}, ROWS, 3)
    int8_dynamic.compress(graph, tmp_path / "int8.onnx", MATERIAL)
    assert nodes_in(tmp_path / "int8.onnx") == ["DynamicQuantizeMatMul", "Add"]
    assert run(tmp_path / "int8.onnx", X) == pytest.approx(X @ WEIGHT + 1, abs=1e-2)


def test_columns_keep_their_own_scales_and_zeros_stay_zero() -> None:
    weight = np.array([[127, 0.004, 0], [-63.5, -0.02, 0]], np.float32)
    quantized, scale = quantize_columns(weight)
    assert quantized.tolist() == [[127, 25, 0], [-64, -127, 0]]  # -63.5 goes to the even neighbour
    assert scale == pytest.approx([1, 0.02 / 127, 1])
    assert quantized.dtype == np.int8
    assert scale.dtype == np.float32


@pytest.mark.parametrize("width", [16, 24, 384])
def test_tables_are_looked_up_exactly_where_uint8_can_hold_them(tmp_path: Path, width: int) -> None:
    chosen = np.random.default_rng(0)
    steps = 2.0 ** chosen.integers(-8, 3, (64, 1))  # a scale for each row, 1,024 times apart
    table = (chosen.integers(-126, 127, (64, width)) * steps).astype(np.float32)
    table[:, 0] = 127 * steps[:, 0]
    table[5] = 0
    graph = save_graph(
        tmp_path / "g.onnx",
        [helper.make_node("Gather", ["t", "x"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"])],
        {"t": table, "w": np.eye(width, 2, dtype=np.float32)},
        ("x", TensorProto.INT64, ["rows", "tokens"]),
        2,
    )
    int8_dynamic.compress(graph, tmp_path / "int8.onnx", MATERIAL)
    assert nodes_in(tmp_path / "int8.onnx") == ["GatherBlockQuantized", "DynamicQuantizeMatMul"]
    made = onnx.load(tmp_path / "int8.onnx")
    made.graph.output.append(helper.make_tensor_value_info("e.int8", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = np.array([[0, 63, 5], [17, 17, 1]])
    assert np.array_equal(session.run(["e.int8"], {"x": ids})[0], table[ids])


def test_a_graph_without_linear_layers_is_left_to_onnxruntime(tmp_path: Path) -> None:
    table = np.arange(64, dtype=np.float32).reshape(16, 4)
    source = ("x", TensorProto.INT64, ["rows", "tokens"])
    graph = save_graph(tmp_path / "g.onnx", [helper.make_node("Gather", ["t", "x"], ["y"])], {"t": table}, source, 4)
    assert "quantize_dynamic" in int8_dynamic.compress(graph, tmp_path / "int8.onnx", MATERIAL)
    ids = np.array([[0, 15]])
    assert run(tmp_path / "int8.onnx", ids) == pytest.approx(table[ids], abs=63 / 255)


# Names of the classes, and what one layer of each needs: QAttention where a mask is all that attention knows.
ATTENTION = {
    "bert": "QAttention", "distilbert": "QAttention", "roberta": "QAttention", "electra": "QAttention",
    "albert": "QAttention", "xlm_roberta": "QAttention", "mpnet": "MultiHeadAttention",
    "modernbert": "MultiHeadAttention", "deberta_v2": "MultiHeadAttention",
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in ATTENTION])
def test_a_fused_graph_keeps_its_answers_and_no_matrix_in_float(
    tiny_material: Callable[[str], tuple[Material, Path]], tmp_path: Path, name: str
) -> None:
    from transformers import AutoTokenizer

    material, graph = tiny_material(name)
    fused.compress(graph, tmp_path / "fused.onnx", material)
    int8_dynamic.compress(tmp_path / "fused.onnx", tmp_path / "int8.onnx", material)
    tokenizer = AutoTokenizer.from_pretrained(material.model.model_folder)
    texts = list(material.train.texts[:12])
    batch = tokenizer(texts, padding=True, return_tensors="np")
    expected, found = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
            ["logits"], {side: batch[side].astype(np.int64) for side in ("input_ids", "attention_mask")}
        )[0]
        for path in (tmp_path / "fused.onnx", tmp_path / "int8.onnx")
    )
    assert 0 < np.abs(found - expected).max() < 0.1 * np.ptp(expected)
    operators = Counter(nodes_in(tmp_path / "int8.onnx"))
    assert operators[ATTENTION[name]] == (3 if name == "modernbert" else 2)
    assert operators["Gemm"] == operators["BiasGelu"] == 0
    matrices = {node.input[1] for node in onnx.load(tmp_path / "int8.onnx").graph.node if node.op_type == "MatMul"}
    floats = {tensor.name: tensor.dims for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert not [each for each in matrices if len(floats.get(each, [])) == 2]

    int8_dynamic.compress(tmp_path / "fused.onnx", tmp_path / "again.onnx", material)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "int8.onnx").read_bytes()


def test_it_is_for_the_cpu(tiny_material: Callable[[str], tuple[Material, Path]]) -> None:
    from dataclasses import replace

    assert int8_dynamic.unsuitable(MATERIAL) == ""
    assert int8_dynamic.unsuitable(replace(MATERIAL, provider="cuda")) == "its kernels run on a CPU only"
