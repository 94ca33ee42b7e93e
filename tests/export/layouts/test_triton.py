"""The Triton layout: what is written, what its check finds, and the answers that its files give."""

from __future__ import annotations

import ast
import dataclasses
import json
import shutil
import struct
import textwrap
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgetune.export.layouts import write_layout
from edgetune.export.layouts.pbtxt import to_text
from edgetune.export.layouts.triton import write
from edgetune.serve.bundle import Bundle, FileEntry, RuntimeSettings
from edgetune.serve.errors import BundleError
from tests.export.layouts.pbtxt_reader import TextFormatError, from_text
from tests.export.layouts.triton_rules import SCHEMA
from tests.export.layouts.triton_rules import repository_faults as check


@pytest.fixture
def repository(bundle, tmp_path) -> Path:
    """A repository that a test may damage."""
    folder = tmp_path / "repository"
    write_layout(bundle, "triton", folder)
    return folder


@pytest.fixture
def model(repository) -> Path:
    """Its one model."""
    (found,) = (path for path in repository.iterdir() if path.is_dir())
    return found


def config_of(model: Path) -> dict:
    return from_text((model / "config.pbtxt").read_text("utf-8"), SCHEMA, "ModelConfig")


def test_the_repository_follows_the_rules(repository):
    assert check(repository) == []


def test_the_files_of_the_repository(bundle, model):
    name = bundle.manifest.name
    assert model.name == name
    assert {path.name for path in model.parent.iterdir()} == {"README.md", name}
    lengths = sorted(len(case.input_ids) for case in bundle.golden().cases)
    warm = {f"{spec.name}-{tokens}" for spec in bundle.manifest.inputs for tokens in (lengths[0], lengths[-1])}
    assert {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()} == {
        "config.pbtxt",
        "labels.txt",
        "tokenizer.json",
        "1/model.onnx",
        *(f"warmup/{one}" for one in warm),
    }
    assert (model / "1" / "model.onnx").read_bytes() == (bundle.folder / "model.onnx").read_bytes()
    assert (model / "labels.txt").read_text("utf-8").splitlines() == bundle.manifest.labels


def test_the_readme_speaks_of_this_model(bundle, model):
    readme = (model.parent / "README.md").read_text("utf-8")
    assert readme.startswith(f"# {bundle.manifest.name}, for NVIDIA Triton")
    assert not [word for word in ("MODEL", "INPUTS", "TOKENS", "PAD") if word in readme]
    _, opening, rest = readme.partition("    from tokenizers")
    script = ast.parse(textwrap.dedent(opening + rest.partition("\nThe dynamic")[0]))
    loops = [node for node in ast.walk(script) if isinstance(node, ast.For)]
    assert [ast.literal_eval(loop.iter) for loop in loops] == [[spec.name for spec in bundle.manifest.inputs]]


def test_the_configuration_is_that_of_the_graph(bundle, model):
    config, manifest = config_of(model), bundle.manifest
    assert (config["name"], config["platform"], config["backend"]) == (manifest.name, "onnxruntime_onnx", "onnxruntime")
    assert config["input"] == [{"name": spec.name, "data_type": "TYPE_INT64", "dims": [-1]} for spec in manifest.inputs]
    logits = {"name": "logits", "data_type": "TYPE_FP32", "dims": [len(manifest.labels)]}
    assert config["output"] == [{**logits, "label_filename": "labels.txt"}]
    assert config["max_batch_size"] == 32
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 0}
    assert config["instance_group"] == [{"kind": "KIND_CPU", "count": 1}]
    assert {sample["batch_size"] for sample in config["model_warmup"]} == {1, 32}


def test_warm_up_sends_real_token_ids(bundle, model):
    longest = max(bundle.golden().cases, key=lambda case: len(case.input_ids))
    tokens = len(longest.input_ids)
    content = (model / "warmup" / f"input_ids-{tokens}").read_bytes()
    assert list(struct.unpack(f"<{tokens}q", content)) == longest.input_ids
    mask = (model / "warmup" / f"attention_mask-{tokens}").read_bytes()
    assert struct.unpack(f"<{tokens}q", mask) == (1,) * tokens


def test_a_bundle_for_a_gpu_with_measured_threads(bundle, tmp_path):
    runtime = RuntimeSettings(threads=3, spinning=True, cpu="x", cores=3)
    manifest = msgspec.structs.replace(bundle.manifest, provider="cuda", runtime=runtime)
    write(dataclasses.replace(bundle, manifest=manifest), tmp_path)
    config = config_of(tmp_path / bundle.manifest.name)
    assert config["instance_group"] == [{"kind": "KIND_GPU", "count": 1}]
    assert config["parameters"] == [{"key": "intra_op_thread_count", "value": {"string_value": "3"}}]
    assert check(tmp_path) == []


def test_a_graph_of_several_files_lies_in_a_directory_of_its_name(bundle, tmp_path):
    source = tmp_path / "bundle"
    shutil.copytree(bundle.folder, source)
    (source / "model.onnx.data").write_bytes(b"weights")
    files = {**bundle.manifest.files, "model.onnx.data": FileEntry(7, "0" * 64)}
    wide = Bundle(source, msgspec.structs.replace(bundle.manifest, files=files))
    out = tmp_path / "out"
    out.mkdir()
    write(wide, out)
    version = out / bundle.manifest.name / "1"
    assert {path.relative_to(version).as_posix() for path in version.rglob("*")} == {
        "model.onnx",
        "model.onnx/model.onnx",
        "model.onnx/model.onnx.data",
    }
    assert check(out) == []
    (version / "model.onnx" / "model.onnx").unlink()
    assert check(out) == [f"{bundle.manifest.name}: 1/model.onnx is a directory without a model.onnx"]


def test_a_label_of_two_lines_is_refused(bundle, tmp_path):
    labels = ["a\nb", *bundle.manifest.labels[1:]]
    torn = dataclasses.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, labels=labels))
    with pytest.raises(BundleError, match=r"The label 'a\\nb' of .* has several lines"):
        write_layout(torn, "triton", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def replaced(old: str, new: str) -> Callable[[Path], None]:
    """A change of the first place where the configuration says `old`."""

    def change(model: Path) -> None:
        path = model / "config.pbtxt"
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")

    return change


def stray(model: Path) -> None:
    (model / "1" / "model.onnx.data").write_bytes(b"")


def zero_version(model: Path) -> None:
    (model / "1").rename(model / "01")


def short_warmup(model: Path) -> None:
    next((model / "warmup").iterdir()).write_bytes(b"1234567")


def one_label_less(model: Path) -> None:
    path = model / "labels.txt"
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[1:]), "utf-8")


FAULTS = {
    "another name": (replaced('name: "', 'name: "x'), "is not that of its directory"),
    "an unknown field": (replaced("max_batch_size", "most_batch_size"), "ModelConfig has no field 'most_batch_size'"),
    "an unknown type": (replaced("TYPE_INT64", "TYPE_INT63"), "TYPE_INT63, which is no enum"),
    "no batching": (replaced("max_batch_size: 32", "max_batch_size: 0"), "nothing would be batched"),
    "a size twice": (replaced("max_batch_size: 32", "max_batch_size: 32 max_batch_size: 8"), "may be given once"),
    "a size of zero": (replaced("dims: -1", "dims: 0"), "not one or more of at least 1 or -1"),
    "an input twice": (replaced('name: "attention_mask"', 'name: "input_ids"'), "is configured twice"),
    "another backend": (replaced('backend: "onnxruntime"', 'backend: "python"'), "are not ONNX Runtime's"),
    "a batch too large": (replaced("batch_size: 1\n", "batch_size: 33\n"), "batch_size outside 1 to 32"),
    "no instance": (replaced("count: 1", "count: 0"), "count below 1"),
    "an unclosed brace": (replaced("}", ""), "cannot be read: line"),
    "a graph with company": (stray, "belong into a directory named model.onnx"),
    "a version that begins with 0": (zero_version, "there is no version"),
    "too short a warm-up": (short_warmup, "has fewer than"),
    "too few labels": (one_label_less, "lines for an output of"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_finds(repository, model, name):
    change, wanted = FAULTS[name]
    change(model)
    faults = check(repository)
    assert any(wanted in fault for fault in faults), faults


def test_a_stray_directory_is_a_model_without_a_configuration(repository):
    (repository / "tokenizer").mkdir()
    assert [fault.partition(":")[0] for fault in check(repository)] == ["tokenizer"]


SMALL = {
    "Top": {
        "number": SCHEMA["ModelConfig"]["max_batch_size"],
        "dims": SCHEMA["ModelInput"]["dims"],
        "text": SCHEMA["ModelConfig"]["name"],
        "kind": SCHEMA["ModelInstanceGroup"]["kind"],
        "flag": SCHEMA["WarmupInput"]["zero_data"],
    }
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("number: 3", {"number": 3}),
        ("number:-3 # of what\n  text : 'no'".replace("'", '"'), {"number": -3, "text": "no"}),
        ("dims: [ 1, 2 ] dims: 3", {"dims": [1, 2, 3]}),
        ("dims: []", {"dims": []}),
        ('text: "a \\"b\\" \\u00e9"; flag: true,', {"text": 'a "b" é', "flag": True}),
        ("kind: KIND_GPU", {"kind": "KIND_GPU"}),
    ],
)
def test_text_is_read(text, wanted):
    assert from_text(text, SMALL, "Top") == wanted


@pytest.mark.parametrize(
    "text",
    [
        "number 3", "number: 3.5", "number: 2147483648", "number: three", 'number: "3"', "number: true", "number:",
        "dims: [1 2]", "dims: [1,]", "dims: [1", "text: unquoted", 'text: "open', 'text: "\\x41"', "kind: KIND_TPU",
        "kind: 1", "flag: yes", "other: 1", "number: 1 }", "{", "3", '"text"', "number: 1 number: 2", "number: [1, 2]",
    ],
)  # fmt: skip
def test_other_text_is_refused(text):
    with pytest.raises(TextFormatError, match=r"^line 1: "):
        from_text(text, SMALL, "Top")


def test_what_is_written_is_read_again(model):
    config = config_of(model)
    assert to_text(config).count("\n") > 20
    quoted = '{"a": "b\\"c\\nd é"}'
    assert from_text(f"text: {json.dumps(quoted)}", SMALL, "Top") == {"text": quoted}


def test_a_client_that_follows_the_configuration_gets_our_labels(model, texts, answers):
    """What the README's client does, with an ONNX Runtime session in the server's place."""
    import onnxruntime
    from tokenizers import Tokenizer

    config = config_of(model)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model / "1" / "model.onnx", options, providers=["CPUExecutionProvider"])
    labels = (model / config["output"][0]["label_filename"]).read_text("utf-8").splitlines()
    found = []
    for text in texts:
        encoding = tokenizer.encode(text)
        columns = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        feed = {spec["name"]: np.array([columns[spec["name"]]], dtype=np.int64) for spec in config["input"]}
        (logits,) = session.run([config["output"][0]["name"]], feed)
        assert logits.shape == (1, *config["output"][0]["dims"])
        found.append(labels[int(logits.argmax())])
    assert found == answers


REAL_PROTOCOL = """
import json, sys
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc.model_config_pb2 import ModelConfig

config = text_format.Parse(open(sys.argv[1], encoding="utf-8").read(), ModelConfig())
kinds = {getattr(FieldDescriptor, "TYPE_" + name): name.lower() for name in
         "INT32 INT64 UINT32 UINT64 BOOL STRING ENUM MESSAGE".split()}

def facts(message, wanted, schema):
    for name, field in schema[wanted].items():
        found = message.fields_by_name[name]
        kind = kinds[found.type]
        repeated = getattr(found, "is_repeated", None)
        repeated = found.label == FieldDescriptor.LABEL_REPEATED if repeated is None else repeated
        assert repeated == field["repeated"], name
        if kind == "enum":
            names = {value.name for value in found.enum_type.values}
            assert set(field["names"]) <= names, (name, names)
        if kind == "message":
            facts(found.message_type, field["kind"], schema)
        else:
            assert kind == field["kind"], (name, kind)

facts(ModelConfig.DESCRIPTOR, "ModelConfig", json.loads(sys.argv[2]))
print(json.dumps({"name": config.name, "inputs": [one.name for one in config.input],
                  "dims": [list(one.dims) for one in config.output],
                  "warmup": [[one.batch_size, sorted(one.inputs)] for one in config.model_warmup],
                  "threads": config.parameters["intra_op_thread_count"].string_value}))
"""


@pytest.mark.servers
def test_tritons_own_protocol_reads_the_same(bundle, model, server_environment, python_output, tmp_path):
    python = server_environment("tritonclient", ["tritonclient[grpc]"])
    schema = {
        message: {name: dataclasses.asdict(field) for name, field in fields.items()}
        for message, fields in SCHEMA.items()
    }
    printed = python_output(python, REAL_PROTOCOL, model / "config.pbtxt", json.dumps(schema), cwd=tmp_path)
    found, ours = json.loads(printed), config_of(model)
    assert found["name"] == ours["name"]
    assert found["inputs"] == [one["name"] for one in ours["input"]]
    assert found["dims"] == [[len(bundle.manifest.labels)]]
    names = sorted(spec.name for spec in bundle.manifest.inputs)
    assert found["warmup"] == [[one["batch_size"], names] for one in ours["model_warmup"]]
    assert found["threads"] == ours["parameters"][0]["value"]["string_value"]
