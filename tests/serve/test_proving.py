"""Proving in a process of its own: what never ends or takes all memory is stopped, whatever it is made of."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save_model

from edgetune.serve import load, proving
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleDamaged, BundleError, BundleFormatError, EdgetuneError
from edgetune.serve.golden import replay_golden
from edgetune.serve.proving import long_text, prove


def test_a_sound_bundle_is_proven_as_it_is_replayed(bundle_copy):
    proof = prove(Bundle.open(bundle_copy.folder))
    here = replay_golden(load(bundle_copy.folder))
    assert list(proof.replays) == [proof.variant] == ["fp32"]
    assert (proof.replays["fp32"].cases, proof.replays["fp32"].tolerance) == (here.cases, here.tolerance)
    assert proof.reason == "fp32: the bundle has no other graph for this provider."


def test_an_error_of_the_process_is_raised_as_it_was(bundle_copy):
    bundle_copy.change("golden.json", lambda golden: golden["cases"][0]["input_ids"].append(5))
    bundle_copy.digest_again("golden.json")
    with pytest.raises(BundleDamaged) as caught:
        prove(Bundle.open(bundle_copy.folder))
    with pytest.raises(BundleDamaged) as here:
        replay_golden(load(bundle_copy.folder))
    assert str(caught.value) == str(here.value)
    bundle_copy.change_manifest(lambda manifest: manifest.update(codec="sound"))
    with pytest.raises(BundleFormatError, match="inputs of the kind 'sound'"):
        prove(Bundle.open(bundle_copy.folder))


def _replace_graph(bundle_copy: Any, nodes: list[Any], constants: dict[str, np.ndarray]) -> Bundle:
    """The bundle with a graph of these nodes, which make `logits` of `input_ids`."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        bundle_copy.path("model.onnx"),
    )
    bundle_copy.digest_again("model.onnx")
    return Bundle.open(bundle_copy.folder)


def _logits_of(name: str) -> list[Any]:
    """Nodes that make logits (batch, 3) of a tensor (batch, tokens) float32."""
    return [
        helper.make_node("ReduceSum", [name, "one"], ["sum"], keepdims=1),
        helper.make_node("Concat", ["sum", "sum", "sum"], ["logits"], axis=1),
    ]


def _never_ending() -> tuple[list[Any], dict[str, np.ndarray]]:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Sin", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens"]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "tokens"]),
        ],
    )
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Loop", ["times", "yes", "floats"], ["looped"], body=body),
        *_logits_of("looped"),
    ]
    return nodes, {"times": np.array(2**62), "yes": np.array(True), "one": np.array([1])}


def test_a_graph_that_never_ends_is_stopped(bundle_copy):
    bundle = _replace_graph(bundle_copy, *_never_ending())
    with pytest.raises(BundleError) as caught:
        prove(bundle, seconds=3)
    assert caught.value.found == f"{bundle.folder} was not proven within 3 seconds."
    assert "--prove-seconds" in caught.value.action


def test_nobody_waits_for_a_proof_when_the_server_leaves(bundle_copy):
    bundle = _replace_graph(bundle_copy, *_never_ending())
    leaving = threading.Event()
    threading.Timer(0.5, leaving.set).start()
    with pytest.raises(BundleError, match="the server is on its way out"):
        prove(bundle, leaving=leaving)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that a test reaches soon; ONNX Runtime and numpy themselves take a tenth of it."""
    monkeypatch.setattr(proving, "LEAST_MEMORY_BYTES", 2**30)


# ONNX Runtime says itself that it gets no more memory where the system gives none away that is not there.
NO_MEMORY = r"takes more than 1\.0 GiB of memory|ONNX Runtime|ended by SIGKILL"


@pytest.mark.parametrize("gigabytes", [6, 64, 4000])
def test_a_graph_that_takes_all_memory_is_stopped(bundle_copy, little_memory, gigabytes):
    nodes = [
        helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["ids", "nothing"], ["floats"]),
        *_logits_of("floats"),
    ]
    constants = {"many": np.array([gigabytes * 2**28]), "one": np.array([1])}
    bundle = _replace_graph(bundle_copy, nodes, constants)
    with pytest.raises(EdgetuneError, match=NO_MEMORY):
        prove(bundle)


def test_a_tokenizer_that_takes_all_memory_is_stopped(bundle_copy, little_memory):
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": " " * 1_000_000}
    bundle_copy.change(
        "tokenizer.json", lambda content: content.update(normalizer={"type": "Sequence", "normalizers": [blanks] * 2})
    )
    bundle_copy.digest_again("tokenizer.json")
    with pytest.raises(BundleError, match=NO_MEMORY + "|golden answers differ|within|SIGABRT"):
        prove(Bundle.open(bundle_copy.folder), seconds=60)


def test_a_process_that_dies_is_told(bundle_copy, monkeypatch):
    monkeypatch.setattr(proving.sys, "executable", "/bin/false")
    with pytest.raises(BundleError, match="the process that proved it ended by exit code 1"):
        prove(Bundle.open(bundle_copy.folder))


def test_long_texts_have_every_printable_character():
    text = long_text(16)
    assert len(text) == 4096
    assert set(map(chr, range(32, 127))) <= set(text)
    assert len(long_text(2**24)) == 2**16
