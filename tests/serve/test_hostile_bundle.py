"""Bundles that were damaged or made to do harm: refused before anything parses them, in a bounded time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, load_model, save_model
from onnx.external_data_helper import convert_model_to_external_data

from edgetune.export.once.pack import write_manifest
from edgetune.serve import load
from edgetune.serve.bundle import Bundle, digest_of
from edgetune.serve.errors import BundleDamaged, BundleError, EdgetuneError, RunError
from edgetune.serve.external import external_files
from edgetune.serve.golden import replay_golden

READ = ("manifest.json", "model.onnx", "tokenizer.json", "config.json", "golden.json")


def refused(folder: Path, *, verify: bool = True) -> str:
    """What both ways in say of a bundle that they refuse."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder, verify=verify)
    with pytest.raises(BundleError) as again:
        load(folder, verify=verify)
    assert str(again.value) == str(caught.value)
    return caught.value.found


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", READ)
def test_a_link_is_never_followed(bundle_copy, tmp_path, name, verify):
    # Even to the very bytes that were packed: what a link leads to may change after it was verified.
    moved = bundle_copy.path(name).rename(tmp_path / "moved")
    bundle_copy.path(name).symlink_to(moved)
    assert f"{name} " in refused(bundle_copy.folder, verify=verify)
    bundle_copy.path(name).unlink()
    bundle_copy.path(name).symlink_to("/dev/zero")
    assert "is a link" in refused(bundle_copy.folder, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", READ)
def test_a_fifo_is_never_waited_for(bundle_copy, name, verify):
    bundle_copy.path(name).unlink()
    os.mkfifo(bundle_copy.path(name))
    assert "is no regular file" in refused(bundle_copy.folder, verify=verify)


def test_a_manifest_without_an_end_is_not_read_whole(bundle_copy, monkeypatch):
    monkeypatch.setattr("edgetune.serve.bundle.MOST_JSON_BYTES", 1000)
    assert "manifest.json cannot be read: it has more than 1,000 bytes." in refused(bundle_copy.folder)


def test_the_folder_itself_may_be_a_link(bundle_copy, tmp_path):
    (tmp_path / "current").symlink_to(bundle_copy.folder)
    assert load(tmp_path / "current", threads=1).predict_one("where is my parcel").label == "delivery"


def test_no_parser_sees_changed_bytes(bundle_copy, monkeypatch):
    """Digests come before parsers, although other files would open meanwhile."""
    for parser in ("edgetune.serve.codecs.text.read_tokenizer", "edgetune.serve.variants.open_session"):
        monkeypatch.setattr(parser, lambda *given, **named: pytest.fail(f"{given} was parsed"))
    content = bytearray(bundle_copy.path("report.html").read_bytes())
    content[100] ^= 1
    bundle_copy.path("report.html").write_bytes(content)
    assert "report.html has changed bytes" in refused(bundle_copy.folder)


# The manifest's own digest.


def test_a_packed_manifest_tells_its_own_digest(bundle_copy):
    write_manifest(bundle_copy.folder, Bundle.open(bundle_copy.folder).manifest)
    manifest = json.loads(bundle_copy.path("manifest.json").read_text("utf-8"))
    assert list(manifest)[-1] == "manifest_digest"
    assert (
        manifest["manifest_digest"] == digest_of(manifest) == Bundle.open(bundle_copy.folder).manifest.manifest_digest
    )
    # Packed again, as a build does it in its later stages, it is that of the new manifest.
    write_manifest(bundle_copy.folder, Bundle.open(bundle_copy.folder).manifest)
    assert load(bundle_copy.folder, threads=1).predict_one("where is my parcel").label == "delivery"


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["labels"].reverse(),
        lambda manifest: manifest.update(max_tokens=manifest["max_tokens"] - 1),
        lambda manifest: manifest["versions"].update(numpy="0"),
        lambda manifest: manifest.update(colour="blue"),
        lambda manifest: manifest.update(manifest_digest="sha256:" + "0" * 64),
    ],
)
def test_whatever_is_changed_in_a_manifest_is_found(bundle_copy, change):
    write_manifest(bundle_copy.folder, Bundle.open(bundle_copy.folder).manifest)
    bundle_copy.change_manifest(change)
    assert "manifest.json has changed bytes (its manifest_digest differs)." in refused(bundle_copy.folder)
    assert "manifest_digest differs" in refused(bundle_copy.folder, verify=False)


def test_labels_of_an_older_manifest_are_those_of_the_config(bundle_copy):
    """Bundles of older releases have no digest of their manifest; other servers answer by config.json's labels."""
    bundle_copy.change_manifest(lambda manifest: manifest["labels"].reverse())
    assert "manifest.json has the label 'payment', config.json 'account'" in refused(bundle_copy.folder)


# Strangers.


def test_strangers_are_named_and_not_read(bundle_copy):
    bundle_copy.path("chat_template.jinja").write_text("{{ 1 }}")
    bundle_copy.path("notes").mkdir()
    bundle_copy.path("link").symlink_to("/dev/zero")
    os.mkfifo(bundle_copy.path("fifo"))
    bundle = Bundle.open(bundle_copy.folder)
    assert bundle.strangers() == ["chat_template.jinja", "fifo", "link", "notes"]
    assert bundle.path("chat_template.jinja") is None
    assert load(bundle_copy.folder, threads=1).predict_one("where is my parcel").label == "delivery"


@pytest.mark.parametrize("name", ["golden.json", "report.json"])
def test_what_is_not_listed_is_not_read(bundle_copy, name):
    bundle_copy.change_manifest(lambda manifest: manifest["files"].pop(name))
    bundle = Bundle.open(bundle_copy.folder)
    assert bundle.strangers() == [name]
    with pytest.raises(BundleDamaged, match=rf"{name} is not listed"):
        bundle.read(name, dict)


def _with_weights_beside(bundle_copy: Any, location: str) -> None:
    model = load_model(bundle_copy.path("model.onnx"))
    convert_model_to_external_data(model, location=location, size_threshold=64)
    save_model(model, bundle_copy.path("model.onnx"))
    bundle_copy.digest_again("model.onnx")


@pytest.mark.parametrize("verify", [True, False])
def test_weights_that_are_not_listed_are_never_used(bundle_copy, verify):
    _with_weights_beside(bundle_copy, "weights.bin")
    assert external_files(bundle_copy.path("model.onnx")) == {"weights.bin"}
    told = refused(bundle_copy.folder, verify=verify)
    assert told.endswith("model.onnx takes weights from 'weights.bin', which is not listed.")
    bundle_copy.digest_again("weights.bin")
    assert load(bundle_copy.folder, threads=1).predict_one("where is my parcel").label == "delivery"


@pytest.mark.parametrize("verify", [True, False])
def test_weights_of_a_sub_folder_are_never_used(bundle_copy, verify):
    bundle_copy.path("sub").mkdir()
    _with_weights_beside(bundle_copy, "sub/weights.bin")
    assert "takes weights from 'sub/weights.bin', which is not listed" in refused(bundle_copy.folder, verify=verify)


def test_weights_are_found_wherever_a_graph_can_hold_them(tmp_path):
    """In an attribute, a subgraph and a function, in a sparse tensor, and by keys in any order."""

    def outside(location: str) -> TensorProto:
        tensor = TensorProto(name="w" + location, data_type=TensorProto.FLOAT, dims=[1], data_location=1)
        for key, value in (("offset", "0"), ("location", location)):
            entry = tensor.external_data.add()
            entry.value, entry.key = value, key
        return tensor

    inner = helper.make_graph([helper.make_node("Constant", [], ["b"], value=outside("inner"))], "inner", [], [])
    nodes = [helper.make_node("Constant", [], ["a"], value=outside("node")), helper.make_node("If", ["c"], ["d"])]
    nodes[1].attribute.append(helper.make_attribute("then_branch", inner))
    graph = helper.make_graph(nodes, "g", [], [], [outside("initializer")])
    graph.sparse_initializer.add().values.CopyFrom(outside("sparse"))
    function = helper.make_function(
        "d", "f", [], ["y"], [helper.make_node("Constant", [], ["y"], value=outside("function"))], []
    )
    path = tmp_path / "g.onnx"
    path.write_bytes(helper.make_model(graph, functions=[function]).SerializeToString())
    assert external_files(path) == {"inner", "node", "initializer", "sparse", "function"}


def test_what_is_no_graph_beside_a_stranger_is_damage(bundle_copy):
    bundle_copy.path("notes.txt").write_text("mine")
    bundle_copy.path("model.onnx").write_bytes(b"\x3a\x7flocation")
    bundle_copy.digest_again("model.onnx")
    assert "model.onnx is no graph: a field is longer than its message" in refused(bundle_copy.folder)


# Numbers.


def _set(place: str, value: object) -> Any:
    *outer, last = place.split(".")

    def change(manifest: dict[str, Any]) -> None:
        for name in outer:
            manifest = manifest.setdefault(name, {})
        manifest[last] = value

    return change


RUNTIME = {"threads": 1, "spinning": True, "cpu": "x", "cores": 2}
VARIANT = {"scheme": "x", "graph": "model.onnx", "golden": "g", "provider": "cpu", "dtypes": {}}
NUMBERS = [
    *[("format", value) for value in (-1, 0)],
    *[("max_tokens", value) for value in (-1, 0, 2**25, 2**64, 2**70)],
    *[("runtime", {**RUNTIME, "threads": value}) for value in (-1, 0, 100_000, 2**64)],
    *[("runtime", {**RUNTIME, "cores": value}) for value in (0, 2**31)],
    *[("files", {"model.onnx": {"bytes": value, "sha256": "0" * 64}}) for value in (-1, 2**60, 1e300)],
    *[("dtypes", {"FLOAT": value}) for value in (-0.1, 1.5, 1e300)],
    ("inputs", [{"name": "input_ids", "dtype": "int64", "shape": [2**70]}]),
    ("heads", [{"kind": "labels", "labels": ["a"], "thresholds": [1e300]}]),
    *[("variants", [{**VARIANT, "p50_ms": value}]) for value in (-1, 1e300)],
]
DECODER = {
    "layers": 1, "kv_heads": 1, "head_dim": 8, "vocabulary": 10, "context_tokens": 16, "eos_ids": [1]
}  # fmt: skip
NUMBERS += [("generation", {**DECODER, name: value}) for name in DECODER if name != "eos_ids" for value in (0, 2**40)]
NUMBERS += [("generation", {**DECODER, name: value}) for name in ("bos_id", "pad_id") for value in (-1, 2**31, 2**70)]
NUMBERS += [("generation", {**DECODER, "eos_ids": [value]}) for value in (-1, 2**70)]


@pytest.mark.parametrize(("place", "value"), NUMBERS)
def test_numbers_of_a_manifest_are_bounded(bundle_copy, place, value):
    bundle_copy.change_manifest(_set(place, value))
    told = refused(bundle_copy.folder)
    assert "manifest.json is no manifest: " in told
    assert "Expected" in told


@pytest.mark.parametrize("value", [-2, 2**31, 2**70, 1.5, True, "5"])
def test_the_padding_token_is_an_id(bundle_copy, value):
    bundle_copy.change("config.json", _set("pad_token_id", value))
    bundle_copy.digest_again("config.json")
    with pytest.raises(BundleDamaged, match=r"config\.json cannot be read: .*pad_token_id"):
        load(bundle_copy.folder)


def test_a_padding_token_of_minus_one_names_none(bundle_copy):
    bundle_copy.change("config.json", _set("pad_token_id", -1))
    bundle_copy.digest_again("config.json")
    answers = load(bundle_copy.folder, threads=1).predict(["where is my parcel", "card"])
    assert answers[0].label == "delivery"


def test_a_padding_token_that_the_graph_does_not_know_is_a_message(bundle_copy):
    bundle_copy.change("config.json", _set("pad_token_id", 2**31 - 1))
    bundle_copy.digest_again("config.json")
    with pytest.raises(RunError, match="ONNX Runtime failed on a run of"):
        load(bundle_copy.folder, threads=1).predict(["where is my parcel", "card"])


@pytest.mark.parametrize("tolerance", [1e300, 1e9, 50.0, -1.0])
def test_a_tolerance_that_proves_nothing_is_refused(bundle_copy, tolerance):
    bundle_copy.change("golden.json", _set("tolerance", tolerance))
    bundle_copy.digest_again("golden.json")
    with pytest.raises(BundleDamaged, match=r"golden\.json (allows a difference of|cannot be read)"):
        replay_golden(load(bundle_copy.folder, threads=1))


def test_more_threads_than_cores_are_never_started(bundle_copy, monkeypatch):
    from edgetune.serve.variants import Machine

    here = Machine.here(instructions=False)
    runtime = {"threads": 1024, "spinning": True, "cpu": here.cpu, "cores": here.cores}
    bundle_copy.change_manifest(_set("runtime", runtime))
    assert load(bundle_copy.folder).threads == here.cores


# Graphs that fail while they run.


def _graph(nodes: list[Any], bundle_copy: Any) -> None:
    """Put a graph of these nodes in the place of the bundle's: they make `logits` of `input_ids`."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    model: ModelProto = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    save_model(model, bundle_copy.path("model.onnx"))
    bundle_copy.digest_again("model.onnx")


def _floats() -> Any:
    return helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT)


def _numbers(name: str, *values: int) -> Any:
    tensor = helper.make_tensor(name, TensorProto.INT64, [len(values)], np.array(values, np.int64))
    return helper.make_node("Constant", [], [name], value=tensor)


_SIZES = {"seven": (-1, 7), "zero": (0,), "three": (3,), "last": (1,), "rows": (-1, 3)}


def test_a_graph_that_gives_other_rows_is_a_message(bundle_copy):
    # Six tokens are two rows of three: the answers would be shifted by one text.
    _graph(
        [_floats(), _numbers("rows", -1, 3), helper.make_node("Reshape", ["floats", "rows"], ["logits"])], bundle_copy
    )
    with pytest.raises(RunError, match=r"gave logits of the shape \(2, 3\)") as caught:
        load(bundle_copy.folder, threads=1).predict_one("where is my parcel")
    assert caught.value.expected == "(1, 3): a row for each input"


def test_logits_that_are_no_floats_are_refused(bundle_copy):
    model = load_model(bundle_copy.path("model.onnx"))
    model.graph.node.append(helper.make_node("Cast", ["logits"], ["texts"], to=TensorProto.STRING))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("texts", TensorProto.STRING, ["batch", 3]))
    save_model(model, bundle_copy.path("model.onnx"))
    bundle_copy.digest_again("model.onnx")
    bundle_copy.change_manifest(
        lambda manifest: manifest.update(heads=[{"kind": "label", "output": "texts", "labels": manifest["labels"]}])
    )
    with pytest.raises(BundleDamaged, match="gives None texts"):
        load(bundle_copy.folder)


def test_a_run_that_fails_is_a_message(bundle_copy):
    _graph(
        [
            _floats(),
            *(_numbers(name, *values) for name, values in _SIZES.items()),
            helper.make_node("Reshape", ["floats", "seven"], ["wide"]),  # of six tokens there are no rows of seven
            helper.make_node("Slice", ["wide", "zero", "three", "last"], ["logits"]),
        ],
        bundle_copy,
    )
    with pytest.raises(RunError) as caught:
        replay_golden(load(bundle_copy.folder, threads=1))
    assert isinstance(caught.value, EdgetuneError)
    assert caught.value.found.startswith(f"ONNX Runtime failed on a run of {bundle_copy.folder}: ")
    assert "\n" not in caught.value.found
    assert "Reshape" in caught.value.found


# Tokenizers that fail while they run.

PANICS = {
    # Refers to the second text of a pair in the template for single ones.
    "template": (
        "post_processor",
        {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}},
        },
    ),
    # Backtracks until the library gives up.
    "regex": ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"}),
}


@pytest.mark.parametrize("panic", PANICS)
@pytest.mark.parametrize("texts", [1, 5])
def test_a_tokenizer_that_panics_is_a_message(bundle_copy, panic, texts):
    name, value = PANICS[panic]
    bundle_copy.change("tokenizer.json", _set(name, value))
    bundle_copy.digest_again("tokenizer.json")
    predictor = load(bundle_copy.folder, threads=1)
    with pytest.raises(RunError, match="The tokenizer failed: ") as caught:
        predictor.predict(["a" * 40 + "b"] * texts)
    assert caught.value.action.startswith("give another text")


def test_an_unknown_word_without_a_token_for_it_is_a_message(bundle_copy):
    def without_unknown(content: Any) -> None:
        content["model"]["unk_token"] = "none of them"

    bundle_copy.change("tokenizer.json", without_unknown)
    bundle_copy.digest_again("tokenizer.json")
    with pytest.raises(RunError, match="The tokenizer failed: WordPiece error: Missing"):
        load(bundle_copy.folder, threads=1).predict_one("中")
