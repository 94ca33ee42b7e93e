"""A whole decoder in 4 and 8 bits: what is written, what is refused, and that GPTQ is nearer than rounding."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper

from edgetune.compress.gptq.coverage import quantized_coverage, read_coverage
from edgetune.compress.gptq.graph_file import open_graph, place_graph, write_graph
from edgetune.compress.gptq.head import write_all_positions
from edgetune.compress.gptq.hessians import Calibration, hessians
from edgetune.compress.gptq.prefill import prefill_feed, starting_past, usable_sequences
from edgetune.compress.gptq.quantization import quantize_decoder
from edgetune.serve.errors import CompressError
from edgetune.serve.session import open_session

PARAMETERS = {"embed": 96 * 64, "positions": 48 * 64, "mix": 64 * 64, "up": 64 * 160, "down": 160 * 64}


def all_logits(graph, sequences, spec, scratch):
    write_all_positions(graph, scratch / "all.onnx")
    session = open_session(scratch / "all.onnx", provider="cpu", threads=1)
    return np.concatenate(
        [
            session.run(["logits"], prefill_feed(session, ids, spec, starting_past(graph, spec)))[0][0]
            for ids in sequences
        ]
    )


@pytest.fixture(scope="module")
def made(toy_graph, toy_spec, toy_sequences, tmp_path_factory):
    """Targets and what is said of them, by (bits, head_bits, method)."""
    folder = tmp_path_factory.mktemp("quantized")
    found = {}
    for bits, head_bits, method in [(4, None, "rtn"), (4, None, "gptq"), (4, 8, "gptq"), (8, None, "rtn")]:
        target = folder / f"{bits}-{head_bits}-{method}" / "model.onnx"
        coverage = quantize_decoder(
            toy_graph,
            target,
            bits=bits,
            head_bits=head_bits,
            method=method,
            calibration=toy_sequences[:12] if method == "gptq" else None,
            spec=toy_spec,
        )
        found[bits, head_bits, method] = (target, coverage)
    return found


def test_every_matrix_is_quantized_and_only_the_file_is_left(made):
    for (bits, head_bits, _), (target, coverage) in made.items():
        assert [path.name for path in target.parent.iterdir()] == ["model.onnx"]
        assert coverage == read_coverage(target)
        assert coverage.left == ()
        assert coverage.share_of_parameters == 1.0
        assert {one.name.partition(".")[0]: one.parameters for one in coverage.quantized} == PARAMETERS
        in_head = {one.bits for one in coverage.quantized if one.name.startswith(("embed", "positions"))}
        assert in_head == {head_bits or bits}
        assert {one.bits for one in coverage.quantized if not one.name.startswith(("embed", "positions"))} == {bits}
        assert coverage.size_bytes == target.stat().st_size
        kinds = Counter(node.op_type for node in onnx.load(target).graph.node)
        assert (kinds["MatMulNBits"], kinds["GatherBlockQuantized"]) == (4, 2)
        assert (kinds["MatMul"], kinds["Gemm"], kinds["Gather"], kinds["Transpose"]) == (0, 0, 0, 1)


def test_the_bytes_are_those_of_the_levels_and_their_scales(made):
    total = sum(PARAMETERS.values())
    _, four = made[4, None, "rtn"]
    # 4 bits, a scale of 2 bytes and half a byte of zero point for each 32, and half a byte where `down` has 5 blocks.
    levels = total // 2 + total // 64 + 64 // 2
    assert sum(one.stored_bytes for one in four.quantized) == levels + total // 32 * 2
    assert four.dtypes["UINT8"] == pytest.approx(levels / four.weight_bytes, abs=1e-4)
    _, eight = made[8, None, "rtn"]
    assert sum(one.stored_bytes for one in eight.quantized) == total + total // 32 * 2  # no zero points
    assert four.share_of_bytes > 0.94  # biases are the rest
    assert four.sentence().startswith("5 matrices in 4 bits, 100.0% of the parameters of all matrices and 9")


def test_answers_stay_near_and_gptq_is_nearer_than_rounding(made, toy_graph, toy_spec, toy_sequences, tmp_path):
    unseen = toy_sequences[12:]
    expected = all_logits(toy_graph, unseen, toy_spec, tmp_path)
    scatter = np.square(expected - expected.mean()).mean()
    errors = {
        key: np.square(all_logits(target, unseen, toy_spec, tmp_path) - expected).mean() / scatter
        for key, (target, _) in made.items()
    }
    assert errors[4, None, "gptq"] < 0.6 * errors[4, None, "rtn"]
    assert errors[4, 8, "gptq"] < errors[4, None, "gptq"]
    assert 0 < errors[8, None, "rtn"] < 1e-3
    assert errors[4, None, "rtn"] < 0.1


def test_a_second_run_writes_the_same_bytes_and_the_source_stays(made, toy_graph, toy_spec, toy_sequences, tmp_path):
    before = toy_graph.read_bytes()
    settings = {"bits": 4, "method": "gptq", "calibration": toy_sequences[:12], "spec": toy_spec}
    coverage = quantize_decoder(toy_graph, tmp_path / "again.onnx", **settings)
    target, first = made[4, None, "gptq"]
    assert (tmp_path / "again.onnx").read_bytes() == target.read_bytes()
    assert coverage == first
    assert toy_graph.read_bytes() == before
    assert sorted(path.name for path in toy_graph.parent.iterdir()) == ["model.onnx"]


def test_source_lines_of_the_exporter_are_not_shipped(made):
    for target, _ in made.values():
        assert b"/home/someone" not in target.read_bytes()


def test_weights_in_a_file_beside_the_graph_give_the_same_answers(toy_graph, toy_spec, toy_sequences, tmp_path):
    """What a graph above 1.5 GB goes through, at a smaller limit."""
    outside = tmp_path / "source" / "model.onnx"
    outside.parent.mkdir()
    write_graph(open_graph(toy_graph), outside, most_inline_bytes=1000)
    assert sorted(path.name for path in outside.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    settings = {"bits": 4, "method": "gptq", "calibration": toy_sequences[:12], "spec": toy_spec}
    coverage = quantize_decoder(outside, tmp_path / "q" / "model.onnx", **settings)
    assert coverage == quantize_decoder(toy_graph, tmp_path / "q2" / "model.onnx", **settings)
    assert (tmp_path / "q" / "model.onnx").read_bytes() == (tmp_path / "q2" / "model.onnx").read_bytes()

    beside = tmp_path / "beside" / "model.onnx"
    beside.parent.mkdir()
    write_graph(open_graph(tmp_path / "q" / "model.onnx"), beside, most_inline_bytes=1000)
    moved = tmp_path / "moved" / "model.onnx"
    moved.parent.mkdir()
    place_graph(beside, moved)
    assert sorted(path.name for path in moved.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert list(beside.parent.iterdir()) == []
    read = read_coverage(moved)
    assert (read.quantized, read.dtypes) == (coverage.quantized, coverage.dtypes)
    assert read.size_bytes == sum(path.stat().st_size for path in moved.parent.iterdir())
    (tmp_path / "scratch").mkdir()
    found = [
        all_logits(path, toy_sequences[12:], toy_spec, tmp_path / "scratch")
        for path in (moved, tmp_path / "q" / "model.onnx")
    ]
    assert (found[0] == found[1]).all()
    write_graph(open_graph(toy_graph), beside)
    place_graph(beside, moved)
    assert [path.name for path in moved.parent.iterdir()] == ["model.onnx"]  # weights of the graph before are gone


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 3, "method": "rtn"}, "bits is 3"),
        ({"bits": 4, "method": "rtn", "head_bits": 16}, "head_bits is 16"),
        ({"bits": 4, "method": "rtn", "block": 48}, "block is 48"),
        ({"bits": 4, "method": "awq"}, "the method is 'awq'"),
        ({"bits": 4, "method": "gptq"}, "none of 0 token sequences"),
        ({"bits": 4, "method": "gptq", "calibration": [[5], []]}, "none of 2 token sequences"),
        ({"bits": 4, "method": "gptq", "calibration": [[5, 96]]}, "the token id 96"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(toy_graph, toy_spec, tmp_path, settings, message):
    with pytest.raises(CompressError, match=message):
        quantize_decoder(toy_graph, tmp_path / "model.onnx", spec=toy_spec, **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_of_which_nothing_can_be_quantized_is_refused(tmp_path, product_graph, toy_spec):
    node = helper.make_node("MatMul", ["x", "w"], ["logits"])
    graph = product_graph(tmp_path / "g.onnx", node, ["rows", 32], {"w": np.ones((32, 8), np.float32)})
    with pytest.raises(CompressError, match=r"no weight of .* is quantized \(w: of 32x8, smaller than a block\)"):
        quantize_decoder(graph, tmp_path / "q" / "model.onnx", bits=8, method="rtn", spec=toy_spec)
    assert list((tmp_path / "q").iterdir()) == []
    with pytest.raises(CompressError, match="no weight of"):
        quantized_coverage(graph)


def test_a_file_that_is_no_graph_is_refused(tmp_path, toy_spec):
    (tmp_path / "g.onnx").write_bytes(b"no graph at all")
    with pytest.raises(CompressError, match="cannot be opened"):
        quantize_decoder(tmp_path / "g.onnx", tmp_path / "q.onnx", bits=8, method="rtn", spec=toy_spec)


def test_what_is_left_is_named_with_its_reason(toy_graph, toy_spec, tmp_path):
    """With blocks of 32 a table 72 wide has none that divides it but 8, which is too small."""
    model = onnx.load(toy_graph)
    for tensor in model.graph.initializer:
        if tensor.name == "positions":
            tensor.name = "spare"
    odd = onnx.numpy_helper.from_array(np.zeros((48, 72), np.float32), "odd")
    crop = {"positions_start": [0], "positions_end": [64], "last_axis": [2]}
    model.graph.initializer.extend([odd, *(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in crop.items())])
    gather = next(node for node in model.graph.node if node.name == "embed_positions")
    gather.input[0], gather.output[0] = "odd", "wide_places"
    place = list(model.graph.node).index(gather) + 1
    model.graph.node.insert(place, helper.make_node("Slice", ["wide_places", *crop], ["places"]))
    onnx.save(model, tmp_path / "g.onnx")
    coverage = quantize_decoder(tmp_path / "g.onnx", tmp_path / "q.onnx", bits=4, method="rtn", spec=toy_spec)
    assert [(one.name, one.why) for one in coverage.left] == [("odd", "72 wide, which no block of 16 or more divides")]
    assert 0.85 < coverage.share_of_parameters < 0.9
    assert "left: odd (72 wide" in coverage.sentence()


def test_hessians_are_the_means_of_what_each_product_reads(toy_graph, toy_spec, toy_sequences):
    texts = Calibration(usable_sequences(toy_sequences, toy_spec), toy_spec)
    names = ["embed", "mix", "up", "down", "positions"]
    found = dict(hessians(toy_graph, names, texts))
    assert {name: one.shape[0] for name, one in found.items()} == {"embed": 64, "mix": 64, "up": 64, "down": 160}
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(toy_graph).graph.initializer}
    rows = np.concatenate([weights["embed"][ids] + weights["positions"][: len(ids)] for ids in toy_sequences])
    assert found["mix"] == pytest.approx(rows.T @ rows / len(rows), rel=1e-3, abs=1e-3)
    mixed = rows @ weights["mix"] + weights["mix_bias"]
    assert found["up"] == pytest.approx(mixed.T @ mixed / len(rows), rel=1e-3, abs=1e-3)
    # The head's inputs at every position, though the graph cuts them to the last.
    active = np.maximum(mixed @ weights["up"] + weights["up_bias"], 0)
    last = rows + active @ weights["down"].T + weights["down_bias"]
    assert found["embed"] == pytest.approx(last.T @ last / len(rows), rel=1e-3, abs=1e-2)


def test_hessians_are_the_same_in_as_many_passes_as_memory_asks(toy_graph, toy_spec, toy_sequences):
    texts = Calibration(usable_sequences(toy_sequences[:4], toy_spec), toy_spec)
    names = ["embed", "mix", "up", "down"]
    at_once = dict(hessians(toy_graph, names, texts))
    one_by_one = dict(hessians(toy_graph, names, texts, most_bytes=1))
    assert list(at_once) == list(one_by_one)
    assert all((at_once[name] == one_by_one[name]).all() for name in names)
