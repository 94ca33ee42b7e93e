"""What races is made step by step; a step that fails leaves its reason, a process that ends leaves what it had made."""

from __future__ import annotations

import json

import msgspec
import pytest

from benchmarks.lab.language.artefacts import (
    FILE,
    FP32,
    GENAI,
    GENAI_G128,
    INT4,
    INT4_G128,
    INT4_ONE,
    INT8,
    PYTORCH,
    STATIC,
    STEPS,
    Artefacts,
    build_genai,
    make,
    place_of,
    product_blocks,
    without_paths,
)
from edgetune.serve.errors import CompressError, EdgetuneError
from edgetune.serve.stepwise.spec import GenerationSpec

from ...conftest import TINY

SPEC = GenerationSpec(
    layers=2,
    kv_heads=2,
    head_dim=8,
    vocabulary=300,
    context_tokens=128,
    eos_ids=[2],
    bos_id=1,
    pad_id=0,
    in_place=True,
)
ONE = msgspec.structs.replace(SPEC, batch_one=True)


def test_what_was_made_is_there(tiny_family):
    made = msgspec.json.decode((tiny_family / FILE).read_bytes(), type=Artefacts)
    assert (made.family, made.made, made.reasons) == ("Llama", [FP32, INT4], {})
    assert made.specs == {FP32: SPEC, INT4: SPEC}
    assert "4 bits" in made.coverage[INT4]
    full, small = ((tiny_family / place_of(side) / "model.onnx").stat().st_size for side in (FP32, INT4))
    assert small < full / 2
    assert product_blocks(tiny_family / place_of(INT4) / "model.onnx") == {32}
    assert product_blocks(tiny_family / place_of(FP32) / "model.onnx") == set()
    sides = made.sides(tiny_family, 2)
    assert list(sides) == [PYTORCH, STATIC, FP32, INT4]
    assert [side.runtime for side in sides.values()] == ["torch", "torch-static", "graph", "graph"]
    assert {side.threads for side in sides.values()} == {2}
    assert sides[INT4].size_bytes == small
    # Four bytes a parameter and a header.
    assert made.parameters * 4 < sides[PYTORCH].size_bytes < made.parameters * 4 + 10_000


def test_a_failing_step_leaves_its_reason_and_the_next_its_graph(tmp_path):
    def fails(made, folder):
        raise CompressError("nothing could be quantized")

    def works(made, folder):
        return made.added(INT4_ONE, ONE, "all of it")

    steps = [((INT4,), fails), ((INT4_ONE,), works)]
    made = make("GPT-2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40}, tmp_path, steps)
    assert made.reasons == {INT4: "nothing could be quantized"}
    assert made.specs == {INT4_ONE: ONE}
    assert msgspec.json.decode((tmp_path / FILE).read_bytes(), type=Artefacts) == made
    sides = made.sides(tmp_path, 1)
    assert list(sides) == [PYTORCH, STATIC, INT4_ONE]
    assert sides[INT4_ONE].most_batch == 1
    assert json.loads(sides[INT4_ONE].command("[3]")[-1])["spec"]["batch_one"] is True


def test_a_process_that_ends_leaves_what_it_had_made(tmp_path):
    def ends(made, folder):
        raise SystemExit(137)

    def works(made, folder):
        return made.added(FP32, SPEC)

    steps = [((FP32,), works), ((INT4,), ends)]
    with pytest.raises(SystemExit):
        make("GPT-2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40}, tmp_path, steps)
    made = msgspec.json.decode((tmp_path / FILE).read_bytes(), type=Artefacts)
    assert made.made == [FP32]
    assert made.unknown == [INT4, INT4_G128, INT8, INT4_ONE, GENAI, GENAI_G128]
    given_up = made.given_up()
    assert list(given_up.reasons) == made.unknown
    assert given_up.unknown == []


def test_reasons_name_files_and_not_where_they_lay():
    said = "ONNX Runtime cannot open /tmp/a-b/GPT-2/fp32/model.onnx: The /tmp/x/model model is not supported (a/b, 1/2)"
    assert without_paths(said) == ("ONNX Runtime cannot open model.onnx: The model model is not supported (a/b, 1/2)")
    assert without_paths("see https://example.org/a/b") == "see https://example.org/a/b"


def test_a_graph_that_does_not_open_is_made_again_without_fusions(tiny_family, tmp_path, monkeypatch):
    from edgetune.export.stepwise.graph import DecoderGraph

    tried = []

    def exported(model, folder, *, batch_one=False, fused=True):
        """Gives the family's graph where it is asked for one without fusions, and else a file that is none."""
        tried.append((batch_one, fused))
        folder.mkdir(exist_ok=True)
        path = folder / "model.onnx"
        path.write_bytes(b"no graph" if fused else (tiny_family / place_of(FP32) / "model.onnx").read_bytes())
        return DecoderGraph(path, SPEC, nodes=1, fused=fused)

    monkeypatch.setattr("edgetune.export.stepwise.graph.export_decoder", exported)
    made = make("Llama", TINY, tmp_path, [STEPS[0], STEPS[4]])
    # The graph for one row is its fusions: it is not made without them.
    assert tried == [(False, True), (False, False), (True, True)]
    assert (made.made, made.specs) == ([FP32], {FP32: SPEC})
    assert "cannot open model.onnx" in made.reasons[INT4_ONE]


@pytest.mark.long  # another tool's start
def test_genai_refuses_what_is_no_model(tmp_path):
    pytest.importorskip("onnxruntime_genai")
    (tmp_path / "model").mkdir()
    with pytest.raises(EdgetuneError, match=r"its builder ended with [1-9]"):
        build_genai(tmp_path / "model", tmp_path / "genai")


@pytest.mark.long  # two more exports, four quantizations and another tool's build
def test_every_step_of_a_tiny_family(tmp_path):
    pytest.importorskip("onnxruntime_genai")
    made = make("Llama", TINY, tmp_path)
    assert made.reasons == {}
    assert made.made == [FP32, INT4, INT4_G128, INT8, INT4_ONE, GENAI, GENAI_G128]
    assert [spec.batch_one for spec in made.specs.values()] == [False, False, False, False, True]
    # The fp32 graph of a batch of one is not kept; the other tool's builder may leave a folder for downloads.
    left = {one.name for one in tmp_path.iterdir() if one.is_dir()} - {"cache"}
    assert left == {"model", *(place_of(side) for side in made.made)}
