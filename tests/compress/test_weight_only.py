"""Weight-only int8 and int4: blocks whose values are known by hand, and a tiny BERT that answers as before."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.compress.calibration import answers, calibration, distance
from edgetune.compress.candidate import weight_dtypes
from edgetune.compress.schemes import weight_int4, weight_int8
from edgetune.compress.tables import quantize_rows
from edgetune.compress.weight_only import METHODS, write_quantized
from edgetune.serve.errors import CompressError
from edgetune.serve.session import open_session

SCHEMES = {8: weight_int8, 4: weight_int4}


def linear_graph(path: Path, weight: np.ndarray, *, operator: str = "MatMul") -> Path:
    """`logits = x @ weight`, or a Gemm of the transposed weight with a bias of ones."""
    columns = weight.shape[1]
    stored = weight if operator == "MatMul" else np.ascontiguousarray(weight.T)
    inputs = ["x", "weight"] if operator == "MatMul" else ["x", "weight", "bias"]
    settings = {} if operator == "MatMul" else {"transB": 1}
    initializers = [numpy_helper.from_array(stored, "weight")]
    if operator == "Gemm":
        initializers.append(numpy_helper.from_array(np.ones(columns, np.float32), "bias"))
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["logits"], **settings)],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", len(weight)])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", columns])],
        initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def run(graph: Path, x: np.ndarray) -> np.ndarray:
    return open_session(graph, provider="cpu", threads=1).run(["logits"], {"x": x})[0]


def attribute_of(graph: Path, operator: str, name: str) -> set[int]:
    nodes = [node for node in onnx.load(graph).graph.node if node.op_type == operator]
    return {helper.get_attribute_value(one) for node in nodes for one in node.attribute if one.name == name}


def test_a_block_of_sixteen_levels_comes_back_as_it_was():
    row = np.arange(-7, 8, dtype=np.float32)
    rows = np.zeros((2, 64), np.float32)
    rows[0, :15], rows[1, 32:47] = row, row * 0.5
    packed, scales = quantize_rows(rows)
    assert packed.shape == (2, 32)
    assert scales.tolist() == [[1, 1], [1, 0.5]]  # a block of zeros has the scale 1
    values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(rows.shape).astype(np.float32) - 8
    assert (values * scales.repeat(32, axis=1) == rows).all()


@pytest.mark.parametrize(("bits", "method"), [(bits, method) for bits in METHODS for method in METHODS[bits]])
@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_levels_that_the_bits_have_are_kept_by_every_method(tmp_path, bits, method, operator):
    # Whole steps of one size a column: at most half a step of 15, or of 255, is lost to a block's own spacing.
    top = 2**bits - 1
    weight = np.stack([np.linspace(0, top, 64).round() * step for step in (0.5, 1, 2, 4)] * 8, axis=1).astype(
        np.float32
    )
    graph = linear_graph(tmp_path / "g.onnx", weight, operator=operator)
    assert write_quantized(graph, tmp_path / "q.onnx", bits, method)
    x = np.zeros((1, 64), np.float32)
    x[0, 3] = 1.0
    expected = weight[3] + (operator == "Gemm")
    step = weight.max(axis=0) / top
    assert (np.abs(run(tmp_path / "q.onnx", x)[0] - expected) <= 0.51 * step + 0.01 * expected).all()
    assert attribute_of(tmp_path / "q.onnx", "MatMulNBits", "bits") == {bits}
    assert attribute_of(tmp_path / "q.onnx", "MatMulNBits", "accuracy_level") == {4}


@pytest.mark.parametrize("bits", [8, 4])
def test_the_error_is_within_half_a_step_of_each_block(tmp_path, bits):
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(64, 32)).astype(np.float32)
    weight[:32] *= 100  # a block of its own scale, which its neighbour must not feel
    graph = linear_graph(tmp_path / "g.onnx", weight)
    write_quantized(graph, tmp_path / "q.onnx", bits, "nearest")
    x = np.eye(64, dtype=np.float32)
    found = run(tmp_path / "q.onnx", x)
    for rows in (slice(0, 32), slice(32, 64)):
        span = np.maximum(weight[rows].max(axis=0), 0) - np.minimum(weight[rows].min(axis=0), 0)
        # Half a step of the weight, and one in 254 for the activation that the kernel rounds.
        bound = span / (2**bits - 1) * 0.51 + np.abs(weight[rows]) / 127
        assert (np.abs(found[rows] - weight[rows]) <= bound + 1e-5).all()
    assert np.abs(found - weight).max() > 0


@pytest.fixture(scope="module", params=[8, 4])
def made(request, tiny_material, tmp_path_factory):
    material, graph = tiny_material("bert")
    target = tmp_path_factory.mktemp("weights") / "model.onnx"
    before = (logging.getLogger().level, list(logging.getLogger().handlers))
    line = SCHEMES[request.param].compress(graph, target, material)
    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before
    return request.param, material, graph, target, line


def test_a_tiny_bert_answers_as_its_float_graph_does(made):
    bits, material, graph, target, line = made
    texts = calibration(material, graph)
    found = distance(answers(graph, texts.held_back), answers(target, texts.held_back))
    # Random weights 32 wide do not stand 4 bits: there the values are held by the tests of single blocks above.
    assert 0 < found < {8: 0.01, 4: np.inf}[bits]
    kinds = Counter(node.op_type for node in onnx.load(target).graph.node)
    assert (kinds["MultiHeadAttention"], kinds["Attention"]) == (2, 0)
    assert kinds["MatMulNBits"] >= 9
    assert (kinds["MatMul"], kinds["Gemm"]) == (0, 0)
    assert kinds["GatherBlockQuantized"] >= 1
    assert weight_dtypes(target)["UINT8"] > 0.5
    assert line.startswith(f"MatMulNBits(bits={bits}, block_size=32, accuracy_level=4) by ")
    # 32 wide is one block a column, of which k-quant packs no 4 bits; HQQ is not for a CPU.
    tried = {8: ["nearest", "k-quant"], 4: ["nearest"]}[bits]
    measured = line.partition("texts: ")[2]
    assert [part.split()[0] for part in measured.split(", ")] == tried
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.onnx"]


def test_padding_stays_unseen_by_the_attention_put_in_place(made):
    _, material, graph, target, _ = made
    feed = calibration(material, graph).held_back[0]
    session = open_session(target, provider="cpu", threads=1)
    longer = {name: np.pad(values, ((0, 0), (0, 9))) for name, values in feed.items()}
    assert session.run(["logits"], longer)[0] == pytest.approx(session.run(["logits"], feed)[0], abs=1e-3)


def test_the_same_graph_gives_the_same_bytes_and_prints_nothing(made, tmp_path, capsys):
    bits, material, graph, target, line = made
    assert SCHEMES[bits].compress(graph, tmp_path / "again.onnx", material) == line
    assert (tmp_path / "again.onnx").read_bytes() == target.read_bytes()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("bits", [8, 4])
def test_a_small_encoder_on_a_cpu_is_told_to_take_another_scheme(tmp_path, bits):
    weights = tmp_path / "model.safetensors"
    material = SimpleNamespace(provider="cpu", model=SimpleNamespace(model_folder=tmp_path))
    with weights.open("wb") as stream:
        stream.truncate(22_700_000 * 4)
    assert SCHEMES[bits].unsuitable(material).startswith("a model of 23 M parameters is bound by arithmetic")
    assert SCHEMES[bits].unsuitable(SimpleNamespace(provider="cuda", model=material.model)) == ""
    with weights.open("wb") as stream:
        stream.truncate(278_000_000 * 4)  # sparse: no such bytes are written
    assert SCHEMES[bits].unsuitable(material) == ""


def test_a_graph_without_weights_is_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Cast", ["input_ids"], ["logits"], to=TensorProto.FLOAT)],
        "none",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "g.onnx")
    with pytest.raises(CompressError, match="no linear layer"):
        write_quantized(tmp_path / "g.onnx", tmp_path / "q.onnx", 8, "nearest")
