"""What one matrix in few bits loses, beside the same graph written with that matrix alone quantized."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.compress.gptq import sensitivity
from edgetune.compress.gptq.graph_file import open_graph
from edgetune.compress.gptq.head import write_all_positions
from edgetune.compress.gptq.matrices import find_matrices
from edgetune.compress.gptq.prefill import prefill_feed, starting_past
from edgetune.compress.gptq.sensitivity import Probe, Sensitivities, _factors, _to_measure, measure_sensitivities
from edgetune.serve.errors import CompressError
from edgetune.serve.session import open_session

MATRICES = ("embed", "positions", "mix", "up", "down")


@pytest.fixture(scope="module")
def measured(toy_graph, toy_spec, toy_sequences):
    return measure_sensitivities(toy_graph, toy_sequences, toy_spec, block=32, threads=1)


def test_every_matrix_has_its_settings_from_few_bytes_to_many(measured, tmp_path):
    assert tuple(measured.matrices) == MATRICES
    for name, settings in measured.matrices.items():
        sizes = {(one.bits, one.block): one.stored_bytes for one in settings}
        assert sizes[8, 32] > 1.8 * sizes[4, 32]
        nats = {(one.bits, one.block): one.nats for one in settings}
        assert 0 < nats[8, 32] < 0.2 * nats[4, 32], name
    # 64 wide: no block of 128 fits, so one of 64 stands for it.
    assert [(one.bits, one.block) for one in measured.matrices["up"]] == [(4, 32), (4, 64), (8, 32), (8, 64)]
    # 4 bits of 96 x 64 weights, and for each 32 of them two bytes of scale and a half of zero point.
    assert measured.matrices["embed"][0].stored_bytes == 96 * 64 // 2 + 96 * 2 * 2 + 96
    measured.save(tmp_path / "table.json")
    assert Sensitivities.open(tmp_path / "table.json") == measured


@pytest.mark.parametrize("name", ["embed", "up"])  # shared by head and look-up; stored transposed
def test_a_changed_matrix_gives_the_divergence_of_its_own_graph(toy_graph, toy_spec, tmp_path, name):
    (matrix,) = (one for one in find_matrices(open_graph(toy_graph)) if one.name == name)
    changed = matrix.rows() + np.random.default_rng(0).normal(size=matrix.rows().shape).astype(np.float32) * 0.6
    ids = [5, 9, 2, 40, 41]
    probe = Probe(toy_graph, tmp_path / "probe.onnx", [name], [ids], toy_spec, 1)
    before, after = toy_graph, tmp_path / "changed.onnx"
    _write_with(before, after, name, changed.T if matrix.is_transposed else changed)
    first, second = (_log_probabilities(graph, ids, toy_spec, tmp_path) for graph in (before, after))
    expected = float((np.exp(first) * (first - second)).sum(axis=1).mean())
    assert probe.nats(matrix, changed) == pytest.approx(expected, rel=0.01)
    assert expected > 1e-5
    assert probe.nats(matrix, matrix.rows()) == pytest.approx(0, abs=2e-7)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """The matrices of six layers `x = x + relu(x @ up) @ down` and of a head, each kind of one shape."""
    from onnx import TensorProto, helper, numpy_helper, save

    path = tmp_path_factory.mktemp("deep") / "g.onnx"
    nodes, weights, x = [], [], "x0"
    rng = np.random.default_rng(0)
    for layer in range(6):
        names = {part: f"{part}{layer}" for part in ("up", "down", "inner", "active", "outer")}
        nodes.append(helper.make_node("MatMul", [x, names["up"]], [names["inner"]]))
        nodes.append(helper.make_node("Relu", [names["inner"]], [names["active"]]))
        nodes.append(helper.make_node("MatMul", [names["active"], names["down"]], [names["outer"]]))
        nodes.append(helper.make_node("Add", [x, names["outer"]], [x := f"x{layer + 1}"]))
        for part in ("up", "down"):
            weights.append(numpy_helper.from_array(rng.normal(size=(32, 32)).astype(np.float32), names[part]))
    nodes.append(helper.make_node("MatMul", [x, "head"], ["logits"]))
    weights.append(numpy_helper.from_array(rng.normal(size=(32, 48)).astype(np.float32), "head"))
    wide = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x0", "logits")]
    graph = helper.make_graph(nodes, "deep", wide[:1], wide[1:], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return find_matrices(open_graph(path))


def test_of_many_matrices_some_of_each_kind_are_measured(deep, monkeypatch):
    assert _to_measure(deep) == [matrix.name for matrix in deep]
    monkeypatch.setattr(sensitivity, "MOST_MEASURED", 6)
    assert _to_measure(deep) == ["up0", "up2", "up5", "down0", "down2", "down5", "head"]


def test_between_two_measured_matrices_of_a_kind_the_loss_lies_between_theirs(deep):
    factors = _factors(deep, {"up0": 1.0, "up2": 4.0, "up5": 4.0, "down0": 8.0, "down5": 8.0, "head": 3.0})
    assert factors == pytest.approx(
        {
            "up0": 1,
            "up1": 2,
            "up2": 4,
            "up3": 4,
            "up4": 4,
            "up5": 4,
            **{f"down{layer}": 8 for layer in range(6)},
            "head": 3,
        }
    )


def test_without_texts_or_matrices_nothing_is_measured(toy_graph, toy_spec):
    with pytest.raises(CompressError, match="none of 0 token sequences"):
        measure_sensitivities(toy_graph, [], toy_spec, block=32)


def _write_with(graph, target, name, values):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(graph)
    (tensor,) = (one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
    onnx.save(model, target)


def _log_probabilities(graph, ids, spec, folder):
    write_all_positions(graph, folder / f"all-{graph.name}")
    session = open_session(folder / f"all-{graph.name}", provider="cpu", threads=1)
    logits = session.run(["logits"], prefill_feed(session, ids, spec, starting_past(graph, spec)))[0][0].astype(
        np.float64
    )
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
