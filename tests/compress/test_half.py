"""fp16 and bf16: types that are really in the file, an overflow that is found and kept, answers that stay near."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.compress.calibration import answers, calibration, distance
from edgetune.compress.candidate import weight_dtypes
from edgetune.compress.half import FORMATS, compress_half, write_half
from edgetune.compress.schemes import bf16, fp16

SCHEMES = {"fp16": fp16, "bf16": bf16}


def chain(path: Path, steps: list[tuple[str, float]], *, rows: int = 512) -> Path:
    """`logits` (batch, 4): a table's rows summed over the tokens, then each (operator, constant) in turn.

    The table's row r is (r, 2r, 3r, 4r) / 1024, so that every number on the way is known.
    """
    table = (np.arange(rows)[:, None] * np.arange(1, 5)[None, :] / 1024).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axis"], ["step0"], keepdims=0),
    ]
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axis")]
    for place, (operator, value) in enumerate(steps, start=1):
        constants.append(numpy_helper.from_array(np.array(value, np.float32), f"c{place}"))
        nodes.append(helper.make_node(operator, [f"step{place - 1}", f"c{place}"], [f"step{place}"]))
    nodes.append(helper.make_node("Tanh", [f"step{len(steps)}"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def types_of(graph: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Names of the element types of inputs and outputs, and of initializers."""
    found = onnx.load(graph).graph
    name = TensorProto.DataType.Name
    ends = {value.name: name(value.type.tensor_type.elem_type) for value in [*found.input, *found.output]}
    return ends, {tensor.name: name(tensor.data_type) for tensor in found.initializer}


@pytest.fixture(scope="module")
def material(tiny_material):
    return tiny_material("bert")[0]


def test_a_block_that_overflows_is_found_and_kept(tmp_path, material):
    # Times a million and back again: fp16 ends at 65,504, and nothing but a run of these texts can know.
    graph = chain(tmp_path / "g.onnx", [("Mul", 3.0), ("Mul", 1e6), ("Div", 1e6), ("Sub", 0.5)])
    line = compress_half(graph, tmp_path / "h.onnx", material, "fp16")
    assert "fp16, 2 nodes kept in fp32 (2 beyond its range or without a kernel, 0 astray): step2, step3;" in line
    ends, constants = types_of(tmp_path / "h.onnx")
    assert ends == {"input_ids": "INT64", "logits": "FLOAT"}
    assert {name: constants[name] for name in ("c2", "c3", "table_float16", "c1_float16", "c4_float16")} == {
        "c2": "FLOAT",
        "c3": "FLOAT",
        "table_float16": "FLOAT16",
        "c1_float16": "FLOAT16",
        "c4_float16": "FLOAT16",
    }
    assert "table" not in constants
    feeds = calibration(material, graph).held_back
    (expected,), (found,) = answers(graph, feeds), answers(tmp_path / "h.onnx", feeds)
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 5e-3
    # Without the block in fp32 the same graph is ruined.
    floats = {"rows", *(f"step{place}" for place in range(5)), "logits"}
    write_half(graph, tmp_path / "all.onnx", FORMATS["fp16"], floats, set(), simulated=True)
    assert not np.abs(answers(tmp_path / "all.onnx", feeds)[0] - expected).max() < 0.1


def test_a_node_that_loses_its_digits_is_found_and_kept(tmp_path, material):
    # 3,000 is far below the limit, but fp16 has steps of 2 there: what is added and taken away again is lost.
    graph = chain(tmp_path / "g.onnx", [("Add", 3000.3), ("Sub", 3000.3)])
    line = compress_half(graph, tmp_path / "h.onnx", material, "fp16")
    assert "0 beyond its range or without a kernel, 2 astray): step1, step2;" in line
    feeds = calibration(material, graph).held_back
    assert np.abs(answers(tmp_path / "h.onnx", feeds)[0] - answers(graph, feeds)[0]).max() < 5e-3


def test_bf16_has_the_range_and_keeps_what_has_no_kernel(tmp_path, material):
    graph = chain(tmp_path / "g.onnx", [("Mul", 1e6), ("Div", 1e6)])
    assert "bf16, 0 nodes kept" in compress_half(graph, tmp_path / "h.onnx", material, "bf16")
    assert set(types_of(tmp_path / "h.onnx")[1].values()) == {"BFLOAT16", "INT64"}
    model = onnx.load(graph)
    model.graph.node[1].op_type = "ReduceMean"  # the CUDA provider has none in bf16
    onnx.save(model, tmp_path / "mean.onnx")
    assert "1 nodes kept in fp32 (1 beyond its range or without a kernel" in compress_half(
        tmp_path / "mean.onnx", tmp_path / "h2.onnx", material, "bf16"
    )


@pytest.fixture(scope="module", params=["fp16", "bf16"])
def made(request, tiny_material, tmp_path_factory):
    material, graph = tiny_material("bert")
    target = tmp_path_factory.mktemp("half") / "model.onnx"
    return request.param, material, graph, target, SCHEMES[request.param].compress(graph, target, material)


def test_the_types_are_really_in_the_file(made):
    name, _, graph, target, line = made
    ends, constants = types_of(target)
    assert set(ends.values()) == {"INT64", "FLOAT"}
    assert ends["logits"] == "FLOAT"
    wanted = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}[name]
    assert weight_dtypes(target)[wanted] > 0.9
    assert "FLOAT" not in constants.values()
    assert target.stat().st_size < 0.65 * graph.stat().st_size
    assert line.startswith(f"{name}, 0 nodes kept in fp32")
    kinds = Counter(node.op_type for node in onnx.load(target).graph.node)
    assert kinds["Attention"] == 2
    before = Counter(node.op_type for node in onnx.load(graph).graph.node)
    assert kinds["Cast"] == before["Cast"] + 1  # of the logits, and nowhere between
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.onnx"]


def test_fp16_answers_on_the_cpu_as_the_float_graph_does(tiny_material, tmp_path):
    material, graph = tiny_material("bert")
    fp16.compress(graph, tmp_path / "h.onnx", material)
    feeds = calibration(material, graph).held_back
    (expected,), (found,) = answers(graph, feeds), answers(tmp_path / "h.onnx", feeds)
    assert 0 < distance([expected], [found]) < 1e-4
    assert (expected.argmax(1) == found.argmax(1)).all()


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_rounding_every_value_stays_near(tiny_material, tmp_path, name):
    material, graph = tiny_material("bert")
    floats = {output.name for output in onnx.load(graph).graph.output}
    floats |= {output for node in onnx.load(graph).graph.node if node.op_type == "MatMul" for output in node.output}
    write_half(graph, tmp_path / "r.onnx", FORMATS[name], floats, set(), simulated=True)
    feeds = calibration(material, graph).held_back
    found = distance(answers(graph, feeds), answers(tmp_path / "r.onnx", feeds))
    assert {"fp16": 1e-9, "bf16": 1e-7}[name] < found < {"fp16": 1e-4, "bf16": 1e-2}[name]


def test_the_same_graph_gives_the_same_bytes(made, tmp_path):
    name, material, graph, target, line = made
    assert SCHEMES[name].compress(graph, tmp_path / "again.onnx", material) == line
    assert (tmp_path / "again.onnx").read_bytes() == target.read_bytes()


def test_both_are_for_a_gpu(material):
    assert "no fp16 kernels" in fp16.unsuitable(material)
    assert "no bf16 kernels" in bf16.unsuitable(material)
    assert [scheme.unsuitable(replace(material, provider="cuda")) for scheme in SCHEMES.values()] == ["", ""]
