"""The text-embeddings-inference layout. The server is a Rust program that no package index brings: its check follows
its code, and the answers are made here from the same files by the same steps.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgetune.export.layouts import write_layout
from edgetune.export.layouts.tei import check, write
from edgetune.serve.bundle import Bundle


@pytest.fixture
def folder(bundle, tmp_path) -> Path:
    """A folder that a test may damage."""
    write_layout(bundle, "tei", tmp_path / "tei")
    return tmp_path / "tei"


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def test_the_files_of_the_folder(bundle, folder):
    assert {path.name for path in folder.iterdir()} == {
        *("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"),
        "README.md",
    }
    assert read(folder / "sentence_bert_config.json") == {"max_seq_length": bundle.manifest.max_tokens}
    assert read(folder / "config.json") == read(bundle.folder / "config.json")
    for name in ("model.onnx", "tokenizer.json"):
        assert (folder / name).read_bytes() == (bundle.folder / name).read_bytes()


def test_sizes_get_the_names_that_the_server_reads(bundle, tmp_path):
    """DistilBERT says dim and n_layers."""
    source = tmp_path / "bundle"
    shutil.copytree(bundle.folder, source)
    config = read(source / "config.json")
    config |= {"dim": config.pop("hidden_size"), "n_layers": config.pop("num_hidden_layers")}
    (source / "config.json").write_text(json.dumps(config), "utf-8")
    out = tmp_path / "out"
    out.mkdir()
    write(Bundle(source, bundle.manifest), out)
    assert check(out) == []
    assert read(out / "config.json")["hidden_size"] == config["dim"]
    assert read(out / "config.json")["num_hidden_layers"] == config["n_layers"]


def test_a_bundle_without_a_tokenizer_config(bundle, tmp_path):
    files = {name: entry for name, entry in bundle.manifest.files.items() if name != "tokenizer_config.json"}
    bare = dataclasses.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, files=files))
    write_layout(bare, "tei", tmp_path / "out")
    assert not (tmp_path / "out" / "tokenizer_config.json").exists()


def changed(name: str, **values: object) -> Callable[[Path], None]:
    """A change of keys in a JSON file; None takes the key away."""

    def change(folder: Path) -> None:
        found = {**read(folder / name), **values}
        kept = {key: value for key, value in found.items() if value is not None}
        (folder / name).write_text(json.dumps(kept), "utf-8")

    return change


def missing(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


FAULTS = {
    "no graph": (missing("model.onnx"), "model.onnx is missing"),
    "no config": (missing("config.json"), "config.json is missing"),
    "no tokenizer": (missing("tokenizer.json"), "tokenizer.json is missing"),
    "no longest input": (missing("sentence_bert_config.json"), "max_seq_length is None"),
    "too long an input": (changed("sentence_bert_config.json", max_seq_length=100_000), "past the model's"),
    "a trunk": (changed("config.json", architectures=["BertModel"]), "ends in Classification"),
    "no model_type": (changed("config.json", model_type=None), "names no model_type"),
    "no layers": (changed("config.json", num_hidden_layers=None), "has no num_hidden_layers"),
    "a negative pad id": (changed("config.json", pad_token_id=-1), "pad_token_id is -1"),
    "no labels": (changed("config.json", id2label=None), "lacks id2label or label2id"),
    "one label": (changed("config.json", id2label={"0": "a"}, label2id={"a": 0}), "takes that for a reranker"),
    "labels from 1": (
        changed("config.json", id2label={"1": "a", "2": "b"}, label2id={"a": 1, "b": 2}),
        "does not number its labels from 0",
    ),
    "labels that disagree": (
        changed("config.json", id2label={"0": "a", "1": "b"}, label2id={"a": 1, "b": 0}),
        "not the inverse",
    ),
    "a slow tokenizer": (changed("tokenizer.json", model=None), "holds no fast tokenizer"),
    "padding above": (changed("tokenizer_config.json", padding_side="top"), "padding_side is 'top'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_finds(folder, name):
    change, wanted = FAULTS[name]
    change(folder)
    faults = check(folder)
    assert any(wanted in fault for fault in faults), faults


def test_the_servers_steps_give_our_labels(folder, texts, answers):
    """Tokenizer without its own padding and truncation, cut at max_seq_length, right-padded; logits to id2label."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(read(folder / "sentence_bert_config.json")["max_seq_length"])
    names = read(folder / "config.json")["id2label"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}
    found = []
    for text in texts:
        encoding = tokenizer.encode(text)
        feed = {"input_ids": encoding.ids, "attention_mask": [1] * len(encoding.ids)}
        if "token_type_ids" in wanted:
            feed["token_type_ids"] = encoding.type_ids
        (logits,) = session.run(["logits"], {name: np.array([row], dtype=np.int64) for name, row in feed.items()})
        found.append(names[str(int(logits.argmax()))])
    assert found == answers
