"""The schemes on a graph whose weights are known by hand, and what becomes of one that fails."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.compress.candidate import Candidate
from edgetune.compress.material import Material
from edgetune.compress.route import Route, Step
from edgetune.compress.schemes import SCHEMES
from edgetune.serve.errors import WorkError
from edgetune.tune.data.dataset import Part
from edgetune.tune.training.progress import Silent

# The schemes here look at no more of it than where the graph will run.
MATERIAL = Material(None, Part((), ()), Part((), ()), (), "cpu", "cpu", 0, Silent())  # type: ignore[arg-type]


def linear_graph(path: Path, weight: np.ndarray) -> Path:
    """`logits = x @ weight`, x (batch, rows) float32."""
    rows, columns = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", rows])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", columns])],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def answer(graph: Path, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def test_int8_scales_each_output_channel_by_itself(tmp_path):
    # A column a thousand times smaller than its neighbour: one scale for both would round all of it to nothing.
    weight = np.zeros((8, 2), np.float32)
    weight[0], weight[1] = (100, 0.1), (-50, 0.05)
    candidate = SCHEMES["int8_dynamic"].compress(linear_graph(tmp_path / "g.onnx", weight), tmp_path / "int8", MATERIAL)
    x = np.zeros((1, 8), np.float32)
    x[0, 0] = 1
    # The largest entry of a channel is hit exactly by its scale; the uint8 activation is exact at both ends.
    assert answer(candidate.graph, x)[0] == pytest.approx([100, 0.1], rel=1e-2)
    x[0, :2] = 1, 1
    assert answer(candidate.graph, x)[0] == pytest.approx([50, 0.15], rel=1e-2)


def test_int8_stays_within_the_bound_of_its_steps(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 16)).astype(np.float32)
    x = rng.normal(size=(5, 64)).astype(np.float32)
    graph = linear_graph(tmp_path / "g.onnx", weight)
    found = answer(SCHEMES["int8_dynamic"].compress(graph, tmp_path / "int8", MATERIAL).graph, x)
    weight_step = np.abs(weight).max(axis=0) / 127  # half a step is the largest error of an entry
    x_step = (max(x.max(), 0) - min(x.min(), 0)) / 255
    bound = np.abs(x).sum(axis=1)[:, None] * weight_step + (np.abs(weight).sum(axis=0) + 64 * weight_step) * x_step
    assert (np.abs(found - x @ weight) <= bound).all()
    assert np.abs(found - x @ weight).max() > 0  # it was quantized at all


def test_a_candidate_tells_what_is_in_its_file_and_opens_again(tmp_path):
    weight = np.ones((64, 64), np.float32)
    graph = linear_graph(tmp_path / "g.onnx", weight)
    int8 = SCHEMES["int8_dynamic"].compress(graph, tmp_path / "int8", MATERIAL)
    assert int8.dtypes["INT8"] > 0.8
    assert int8.size_bytes == int8.graph.stat().st_size < graph.stat().st_size / 2
    assert Candidate.open(tmp_path / "int8") == int8
    plain = SCHEMES["fp32"].compress(graph, tmp_path / "fp32", MATERIAL)
    assert plain.dtypes == {"FLOAT": 1.0}
    assert plain.graph.read_bytes() == graph.read_bytes()
    with pytest.raises(WorkError, match="holds no candidate"):
        Candidate.open(tmp_path)


def test_a_route_is_named_by_its_steps_and_takes_the_least_exact_tolerance():
    route = Route((Step("student", 3), Step("trimmed")), "int8_dynamic")
    assert route.name == "student3+trimmed+int8_dynamic"
    assert route.structural
    assert route.tolerance == SCHEMES["int8_dynamic"].tolerance > SCHEMES["fused"].tolerance
    assert not Route((), "int8_dynamic").structural
    assert Route((), "fused").name == "fused"


@pytest.mark.parametrize("scheme", list(SCHEMES.values()), ids=list(SCHEMES))
def test_every_scheme_has_its_file_and_says_what_it_is(scheme):
    module = importlib.import_module(f"edgetune.compress.schemes.{scheme.name}")
    assert callable(module.unsuitable)
    assert callable(module.learn if scheme.level == "artefact" else module.compress)
    assert hasattr(module, "strengths") is (scheme.level == "weights")
    assert scheme.summary.endswith(".")
    assert scheme.when
    assert scheme.cost
    assert scheme.structural is (scheme.name in {"student", "pruned", "static", "linear"})


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SCHEMES))
def test_what_does_not_suit_is_said_in_a_sentence_and_never_raised(tiny_material, name):
    for base in ("bert", "roberta"):
        reason = SCHEMES[name].unsuitable(tiny_material(base)[0])
        assert reason == "" or reason[0].islower(), reason
