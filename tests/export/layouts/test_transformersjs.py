"""The transformers.js layout: its static rules, and the npm package in Node giving the labels that edgetune gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from filelock import FileLock

from edgetune.export.layouts import transformersjs
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleError

VERSION = "4.3.1"

# One text a call; a second look at 32 texts a call, where padding must not change what is said.
CLASSIFY = """
import { readFileSync } from "node:fs";
import { env, pipeline } from "@huggingface/transformers";
env.allowRemoteModels = false;
const [folder, texts] = [process.argv[2], JSON.parse(readFileSync(process.argv[3], "utf8"))];
const classify = await pipeline("text-classification", folder);
const answers = [];
for (const text of texts) answers.push((await classify(text))[0]);
const session = classify.model.sessions.model;
console.log(JSON.stringify({ answers, dtype: session.config.dtype, device: session.config.device }));
"""


@pytest.fixture
def folder(bundle, tmp_path):
    made = tmp_path / "layout"
    made.mkdir()
    transformersjs.write(bundle, made)
    return made


def change(path, edit):
    value = json.loads(path.read_text("utf-8"))
    edit(value)
    path.write_text(json.dumps(value), "utf-8")


def test_the_folder_has_the_files_that_the_library_asks_for(bundle, folder):
    assert transformersjs.check(folder) == []
    dtype = transformersjs.dtype_of(bundle.manifest.dtypes)
    graph = f"onnx/model{transformersjs.SUFFIXES[dtype]}.onnx"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    tokenizer = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    assert files == sorted(["config.json", graph, *tokenizer])
    assert (folder / graph).read_bytes() == (bundle.folder / "model.onnx").read_bytes()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config.pop("transformers.js_config") == {"dtype": dtype}
    assert config == json.loads((bundle.folder / "config.json").read_text("utf-8"))
    assert [config["id2label"][str(place)] for place in range(len(config["id2label"]))] == bundle.manifest.labels


@pytest.mark.parametrize(
    ("dtypes", "dtype", "name"),
    [
        ({"UINT8": 0.51, "INT8": 0.46, "FLOAT": 0.03}, "q8", "model_quantized.onnx"),
        ({"FLOAT": 0.74, "INT8": 0.26}, "q8", "model_quantized.onnx"),
        ({"UINT4": 0.6, "UINT8": 0.3, "FLOAT": 0.1}, "q4", "model_q4.onnx"),
        ({"FLOAT16": 0.98, "INT64": 0.02}, "fp16", "model_fp16.onnx"),
        ({"FLOAT": 0.99, "INT64": 0.01}, "fp32", "model.onnx"),
    ],
)
def test_the_graph_is_named_after_what_most_of_its_bytes_are(dtypes, dtype, name):
    assert transformersjs.dtype_of(dtypes) == dtype
    assert f"model{transformersjs.SUFFIXES[dtype]}.onnx" == name


@pytest.mark.parametrize(
    ("name", "edit", "fault"),
    [
        ("config.json", lambda c: c.pop("model_type"), "names no model_type"),
        ("config.json", lambda c: c.pop("architectures"), "architectures is None, no sequence classifier"),
        ("config.json", lambda c: c.update(architectures=["BertModel"]), "no sequence classifier"),
        ("config.json", lambda c: c["id2label"].pop("0"), "id2label does not number the labels from 0 on"),
        ("config.json", lambda c: c.pop("transformers.js_config"), "dtype is None"),
        ("config.json", lambda c: c["transformers.js_config"].update(dtype="q3"), "dtype is q3"),
        ("config.json", lambda c: c["transformers.js_config"].update(dtype="q4f16"), "and not model_q4f16.onnx"),
        ("tokenizer.json", lambda t: t.pop("model"), "tokenizer.json has no model"),
        ("tokenizer.json", lambda t: t.update(padding={"strategy": "BatchLongest"}), "pads by itself"),
        ("tokenizer_config.json", lambda t: t.pop("tokenizer_class"), "names no tokenizer_class"),
        ("tokenizer_config.json", lambda t: t.update(model_max_length=10**30), "at which nothing is truncated"),
    ],
)
def test_faults(folder, name, edit, fault):
    change(folder / name, edit)
    found = transformersjs.check(folder)
    assert len(found) == 1
    assert fault in found[0]


def test_variants_lie_side_by_side_under_the_names_of_their_dtypes(bundle, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(bundle.folder, source)
    (source / "model_other.onnx").write_bytes(b"other")
    (source / "model_gpu.onnx").write_bytes(b"gpu")
    main = bundle.manifest.graphs[0]
    other = msgspec.structs.replace(main, scheme="other", graph="model_other.onnx", dtypes={"FLOAT16": 1.0})
    gpu = msgspec.structs.replace(main, scheme="gpu", graph="model_gpu.onnx", provider="cuda", dtypes={"UINT4": 1.0})
    again = msgspec.structs.replace(other, scheme="again", graph="model_gpu.onnx")
    manifest = msgspec.structs.replace(bundle.manifest, variants=[main, other, gpu, again])
    made = tmp_path / "made"
    made.mkdir()
    transformersjs.write(Bundle(source, manifest), made)
    assert transformersjs.check(made) == []
    name = f"model{transformersjs.SUFFIXES[transformersjs.dtype_of(main.dtypes)]}.onnx"
    assert {path.name: path.read_bytes() for path in (made / "onnx").iterdir()} == {
        name: (bundle.folder / "model.onnx").read_bytes(),
        "model_fp16.onnx": b"other",
    }
    (made / "onnx" / name).unlink()
    (made / "onnx" / "model_odd.onnx").touch()
    found = transformersjs.check(made)
    assert found[0] == "onnx/model_odd.onnx has the name of no dtype, so that nobody opens it"
    assert f"and not {name}" in found[1]


def test_weights_in_files_of_their_own_are_refused(bundle, tmp_path):
    files = {**bundle.manifest.files, "model.onnx.data": bundle.manifest.files["model.onnx"]}
    manifest = msgspec.structs.replace(bundle.manifest, files=files)
    with pytest.raises(BundleError, match=r"has its weights in model\.onnx\.data"):
        transformersjs.write(Bundle(bundle.folder, manifest), tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_files_are_all_told(folder):
    shutil.rmtree(folder / "onnx")
    (folder / "tokenizer.json").unlink()
    found = transformersjs.check(folder)
    assert "tokenizer.json is missing" in found
    assert any("onnx/ holds nothing" in fault for fault in found)


def install(folder: Path) -> Path:
    """The npm package beside a package.json, its scripts not run: one of them downloads a GPU build of ONNX Runtime."""
    kept = os.environ.get("EDGETUNE_TEST_ENVS")
    place = Path(kept, f"transformersjs-{VERSION}") if kept else folder / "node"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock", timeout=600):
        if not (place / "whole").is_file():
            (place / "package.json").write_text('{"private": true, "type": "module"}')
            done = subprocess.run(
                [
                    "npm",
                    "install",
                    "--ignore-scripts",
                    "--no-audit",
                    "--no-fund",
                    f"@huggingface/transformers@{VERSION}",
                ],
                cwd=place,
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert done.returncode == 0, done.stderr[-4000:]
            (place / "whole").touch()
    return place


@pytest.mark.servers
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_npm_package_gives_the_same_labels(bundle, folder, texts, answers, tmp_path):
    place = install(tmp_path)
    script = place / "classify.mjs"
    script.write_text(CLASSIFY)
    asked = tmp_path / "texts.json"
    asked.write_text(json.dumps(texts))
    done = subprocess.run(["node", script, folder, asked], cwd=place, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["dtype"] == transformersjs.dtype_of(bundle.manifest.dtypes)
    labels = [answer["label"] for answer in found["answers"]]
    assert [(text, label) for text, label in zip(texts, labels, strict=True)] == list(zip(texts, answers, strict=True))
