"""Static int8: ranges, balancing and freed layers on graphs whose numbers are known by hand, and on a tiny BERT."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.compress import static_search
from edgetune.compress.calibration import answers, calibration, distance, pick_texts
from edgetune.compress.candidate import weight_dtypes
from edgetune.compress.ranges import Channels, Histogram, Range, channels_of
from edgetune.compress.schemes import int8_static
from edgetune.compress.static_graph import Plan, write_planned, write_prepared
from edgetune.compress.static_search import search
from edgetune.serve.errors import CompressError
from edgetune.serve.session import open_session
from edgetune.tune.data.dataset import Part

WIDTH = 8


def normed_graph(path: Path, scale: np.ndarray, weight: np.ndarray, *, residual: bool) -> Path:
    """`logits = LayerNorm(x) * scale @ weight`, to which a residual adds the norm's own output where asked for."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["normed"], axis=-1),
        helper.make_node("MatMul", ["normed", "weight"], ["product" if residual else "logits"]),
    ]
    if residual:
        nodes.append(helper.make_node("Add", ["product", "normed"], ["logits"]))
    shape = ["batch", len(scale)]
    graph = helper.make_graph(
        nodes,
        "normed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [
            numpy_helper.from_array(scale.astype(np.float32), "scale"),
            numpy_helper.from_array(np.zeros(len(scale), np.float32), "shift"),
            numpy_helper.from_array(weight.astype(np.float32), "weight"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def run(graph: Path, x: np.ndarray) -> np.ndarray:
    return open_session(graph, provider="cpu", threads=1).run(["logits"], {"x": x})[0]


def operators(graph: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(graph).graph.node)


def normed(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale


@pytest.fixture
def outlier() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, norm scale and weight: one channel is 2,000 times the others, and its weight as much smaller."""
    rng = np.random.default_rng(0)
    scale = np.ones(WIDTH)
    scale[0] = 2000
    weight = rng.normal(size=(WIDTH, WIDTH))
    weight[0] /= 2000
    return rng.normal(size=(64, WIDTH)).astype(np.float32), scale, weight


def test_a_range_stands_for_256_steps_with_zero_among_them():
    found = Range(-1.0, 4.1)
    assert found.scale == np.float32(5.1 / 255)
    assert found.zero_point == 50
    assert Range(0.0, 0.0).zero_point == 0  # nothing but zeros was seen
    assert Range(0.0, 0.0).scale > 0


def test_min_max_takes_all_and_the_percentile_leaves_out_one_in_twenty_thousand():
    values = np.linspace(-1, 1, 100_000).astype(np.float32)
    values[7] = 100
    channels = channels_of([{"x": values[:, None]}])["x"]
    histogram = Histogram(channels)
    histogram.add(values)
    assert (histogram.range("minmax").low, histogram.range("minmax").high) == pytest.approx((-1, 100))
    step = 101 / 2048
    assert histogram.range("percentile").high == pytest.approx(1, abs=2 * step)
    assert histogram.range("percentile").low == pytest.approx(-1, abs=2 * step)


def test_entropy_cuts_a_thin_tail_and_keeps_an_even_spread():
    rng = np.random.default_rng(1)
    thin = np.concatenate([rng.normal(size=200_000), [40.0, -40.0]]).astype(np.float32)
    even = rng.uniform(-1, 1, size=200_000).astype(np.float32)
    found = {}
    for name, values in (("thin", thin), ("even", even)):
        histogram = Histogram(channels_of([{name: values[:, None]}])[name])
        histogram.add(values)
        found[name] = histogram.range("entropy")
    assert found["thin"].high < 20
    assert found["even"].high > 0.9


def test_channels_join_over_batches_and_divide_by_their_balance():
    first, second = np.array([[1.0, -2.0]], np.float32), np.array([[[3.0, 5.0]], [[-1.0, 0.5]]], np.float32)
    found = channels_of([{"x": first}, {"x": second}])["x"]
    assert found.low.tolist() == [-1, -2]
    assert found.high.tolist() == [3, 5]
    assert found.divided(np.array([2, 5], np.float32)).largest.tolist() == [1.5, 1]


def test_a_fixed_range_gives_the_numbers_known_by_hand(tmp_path):
    # Scale 1/127 a column, and a range of 255 steps of 0.5 around zero: inputs on the steps come out exactly.
    weight = np.array([[127, 0], [0, -127], [1, 64]], np.float32) / 127
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
        ],
        "hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array([10, 20], np.float32), "bias")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "g.onnx")
    (layer,) = write_prepared(tmp_path / "g.onnx", tmp_path / "p.onnx")
    plan = Plan({layer.key: "static"}, {"x": Range(-64.0, 63.5)})
    write_planned(tmp_path / "p.onnx", plan, tmp_path / "s.onnx")
    x = np.array([[2.0, -3.5, 0], [0, 1, 63.5]], np.float32)
    assert run(tmp_path / "s.onnx", x) == pytest.approx(x @ weight + [10, 20], abs=1e-4)
    # Beyond the range it is cut off: 1,000 counts as 63.5, which no dynamic range would do.
    assert run(tmp_path / "s.onnx", np.array([[1000, 0, 0]], np.float32))[0, 0] == pytest.approx(73.5, abs=1e-4)
    assert operators(tmp_path / "s.onnx") == {"QuantizeLinear": 1, "MatMulIntegerToFloat": 1}


@pytest.mark.parametrize("residual", [False, True])
def test_balancing_mends_the_outlier_channel_that_min_max_ruins(tmp_path, outlier, residual):
    x, scale, weight = outlier
    graph = normed_graph(tmp_path / "g.onnx", scale, weight, residual=residual)
    expected = run(graph, x)
    (layer,) = write_prepared(graph, tmp_path / "p.onnx")
    channels = channels_of([{"normed": normed(x, scale)}])["normed"]
    factors = np.sqrt(channels.largest / np.abs(weight).max(axis=1)).astype(np.float32)
    away = {}
    for name, balance in (("plain", {}), ("balanced", {"normed": factors})):
        span = Histogram(channels.divided(factors) if balance else channels).range("minmax")
        plan = Plan({layer.key: "static"}, {"normed": span}, balance)
        write_planned(tmp_path / "p.onnx", plan, tmp_path / f"{name}.onnx")
        product = run(tmp_path / f"{name}.onnx", x) - expected
        away[name] = float(np.mean(product**2) / np.var(normed(x, scale) @ weight))
    assert away["plain"] > 0.1  # the other channels fall into a few steps
    assert away["balanced"] < 1e-3
    # Where linear layers alone read the norm its weight takes the balance; else it costs one multiplication.
    assert operators(tmp_path / "balanced.onnx")["Mul"] == int(residual)


@pytest.fixture(scope="module")
def made(tiny_material, tmp_path_factory):
    material, graph = tiny_material("bert")
    target = tmp_path_factory.mktemp("static") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        # Whether a layer of so small a model is worth freeing hangs on rounding; a test of its own frees one.
        patch.setattr(static_search, "NEGLIGIBLE", 1.0)
        return material, graph, target, int8_static.compress(graph, target, material)


def test_a_tiny_bert_answers_as_its_float_graph_does(made):
    material, graph, target, line = made
    texts = calibration(material, graph)
    (expected,), (found,) = answers(graph, texts.held_back), answers(target, texts.held_back)
    assert 0 < distance([expected], [found]) < 0.02
    # Of so small a model many rows lie between two labels: those that are clear keep theirs.
    second, first = np.sort(expected, axis=1)[:, -2:].T
    clear = first - second > 0.5 * expected.std()
    assert clear.sum() >= 5
    assert (expected.argmax(1) == found.argmax(1))[clear].all()
    dtypes = weight_dtypes(target)
    assert dtypes["INT8"] > 0.5
    assert dtypes.get("FLOAT", 0) < 0.4
    kinds = operators(target)
    assert kinds["QAttention"] == 2
    assert kinds["MatMulIntegerToFloat"] >= 7
    assert "linear layers with fixed ranges by" in line
    assert "balanced inputs" in line
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.onnx"]  # nothing tried is left behind


def test_the_same_texts_give_the_same_bytes(made, tmp_path):
    material, graph, target, line = made
    assert int8_static.compress(graph, tmp_path / "again.onnx", material) == line
    assert (tmp_path / "again.onnx").read_bytes() == target.read_bytes()


def test_padding_changes_nothing_that_was_calibrated(made):
    material, graph, target, _ = made
    feed = calibration(material, graph).held_back[0]
    session = open_session(target, provider="cpu", threads=1)
    alone = session.run(["logits"], feed)[0]
    longer = {name: np.pad(values, ((0, 0), (0, 9))) for name, values in feed.items()}
    assert session.run(["logits"], longer)[0] == pytest.approx(alone, abs=1e-4)
    # And no padded row was fed: every text of a feed has its own length.
    assert all(feed["attention_mask"].all() for feed in calibration(material, graph).texts)


def test_a_layer_that_no_fixed_range_fits_is_found_and_freed(made, tmp_path, monkeypatch):
    material, graph, _, _ = made
    whole = Histogram.range

    def ruined(histogram, method):
        """The first activation's range comes out 300 times too wide, so that all of it falls on one step."""
        found = whole(histogram, method)
        return Range(found.low * 300, found.high * 300) if histogram is victims[0] else found

    victims: list[Histogram] = []
    plain = Histogram.__init__

    def born(histogram, channels: Channels):
        plain(histogram, channels)
        victims.append(histogram)

    monkeypatch.setattr(Histogram, "__init__", born)
    monkeypatch.setattr(Histogram, "range", ruined)
    found = search(graph, material, tmp_path)
    first = next(iter(found.plan.modes))
    assert found.freed[first] == "dynamic"  # it is the range that is at fault, not the weights
    assert found.distances["chosen"] < found.distances[found.method] / 10
    assert list(found.plan.modes.values()).count("static") >= 6


def test_held_back_texts_are_no_calibration_texts_and_all_lengths_are_there(made):
    material, graph, _, _ = made
    texts = calibration(material, graph)
    rows = [{row.tobytes() for feed in feeds for row in feed["input_ids"]} for feeds in (texts.texts, texts.held_back)]
    assert all(rows)
    assert not rows[0] & rows[1]
    lengths = [feed["input_ids"].shape[1] for feed in texts.texts]
    assert lengths == sorted(lengths)
    picked = pick_texts(["aaa", "b", "cc", "dddd", "b"], 3)
    assert (picked[0], picked[-1], len(picked)) == ("b", "dddd", 3)


def test_it_says_where_it_does_not_apply(made, tmp_path):
    material, _, _, _ = made
    assert int8_static.unsuitable(material) == ""
    assert int8_static.unsuitable(replace(material, provider="cuda")) == "its kernels run on a CPU only"
    few = replace(material, train=Part(material.train.texts[:5], material.train.targets[:5]))
    assert int8_static.unsuitable(few).startswith("5 training texts are too few")
    graph = helper.make_graph(
        [helper.make_node("Cast", ["input_ids"], ["logits"], to=TensorProto.FLOAT)],
        "none",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "none.onnx")
    with pytest.raises(CompressError, match="no linear layer"):
        int8_static.compress(tmp_path / "none.onnx", tmp_path / "out.onnx", material)
