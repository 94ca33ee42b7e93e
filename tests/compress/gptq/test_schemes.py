"""The ladder: from the smallest scheme to fp32 each is larger and nearer, and fp32 is the graph itself."""

from __future__ import annotations

import math

import onnx
import pytest

from edgetune.compress.gptq.coverage import read_coverage
from edgetune.compress.gptq.quantization import Choice
from edgetune.compress.gptq.schemes import LADDER, scheme_named, write_scheme
from edgetune.compress.gptq.stored import read_blocks
from edgetune.serve.errors import CompressError

# The tied head and the positions in 8 bits, as `int4_head8` has them, and one more matrix.
CHOICES = {
    **dict.fromkeys(("embed", "positions", "mix"), Choice(8, 32, "gptq")),
    **dict.fromkeys(("up", "down"), Choice(4, 32, "gptq")),
}


def test_the_ladder_goes_from_small_to_large(toy_graph, toy_spec, toy_sequences, tmp_path):
    assert [one.name for one in LADDER] == ["int4_g128", "int4", "int4_head8", "mixed", "int8", "fp32"]
    sizes = []
    for scheme in LADDER:
        target = tmp_path / scheme.name / "model.onnx"
        texts = toy_sequences if scheme.is_calibrated else None
        choices = CHOICES if scheme.is_mixed else None
        coverage = write_scheme(scheme, toy_graph, target, calibration=texts, spec=toy_spec, choices=choices)
        sizes.append(coverage.size_bytes)
        assert [path.name for path in target.parent.iterdir()] == ["model.onnx"]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 6
    assert (coverage.quantized, coverage.dtypes["FLOAT"] > 0.99) == ((), True)
    assert {one.why for one in coverage.left} == {"not asked for"}
    weights = [{one.name: one.raw_data for one in onnx.load(path).graph.initializer} for path in (toy_graph, target)]
    assert weights[0] == weights[1]


def test_a_calibrated_scheme_needs_texts(toy_graph, toy_spec, tmp_path):
    with pytest.raises(CompressError, match="none of 0 token sequences"):
        write_scheme(scheme_named("int4"), toy_graph, tmp_path / "q.onnx", calibration=None, spec=toy_spec)


def test_a_mixture_has_the_bits_and_blocks_that_were_chosen(toy_graph, toy_spec, toy_sequences, tmp_path):
    choices = CHOICES | {"up": Choice(8, 64, "gptq")}
    target = tmp_path / "q.onnx"
    coverage = write_scheme(
        scheme_named("mixed"), toy_graph, target, calibration=toy_sequences, spec=toy_spec, choices=choices
    )
    written = {one.name.partition(".")[0]: (one.bits, one.block) for one in coverage.quantized}
    assert written == {name: (choice.bits, choice.block) for name, choice in choices.items()}
    assert coverage.sentence().startswith("5 matrices in 4 and 8 bits, 100.0%")
    with pytest.raises(CompressError, match="has no choice of bits"):
        write_scheme(scheme_named("mixed"), toy_graph, target, calibration=toy_sequences, spec=toy_spec)


def test_an_unknown_scheme_is_refused_with_those_there_are():
    with pytest.raises(CompressError, match="no scheme 'int2'") as caught:
        scheme_named("int2")
    assert caught.value.expected == "int4_g128 or int4 or int4_head8 or mixed or int8 or fp32 or q4_0"


def test_q4_0_is_smaller_than_int4_by_its_zero_points_and_tried_by_name_alone(
    toy_graph, toy_spec, toy_sequences, tmp_path
):
    assert scheme_named("q4_0") not in LADDER
    target, larger = tmp_path / "q4_0" / "model.onnx", tmp_path / "int4" / "model.onnx"
    for name, path in (("q4_0", target), ("int4", larger)):
        write_scheme(scheme_named(name), toy_graph, path, calibration=toy_sequences, spec=toy_spec)
    assert all(blocks.grid.is_symmetric and blocks.block == 32 for _, blocks in read_blocks(target))
    stored = [sum(one.stored_bytes for one in read_coverage(path).quantized) for path in (target, larger)]
    zeros = [one.dims for one in onnx.load(larger).graph.initializer if one.name.endswith(".zeros")]
    assert stored[1] - stored[0] == sum(math.prod(dims) for dims in zeros)


def test_the_block_asked_for_is_the_block_written(toy_graph, toy_spec, toy_sequences, tmp_path):
    target = tmp_path / "q.onnx"
    coverage = write_scheme(scheme_named("int8"), toy_graph, target, calibration=toy_sequences, spec=toy_spec, block=16)
    assert {one.block for one in coverage.quantized} == {16}
