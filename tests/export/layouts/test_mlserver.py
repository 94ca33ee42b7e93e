"""The MLServer layout: what is written, what its check finds, and MLServer itself started on it."""

from __future__ import annotations

import ast
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetune.export.layouts import write_layout
from edgetune.export.layouts.mlserver import REQUIREMENT, check


@pytest.fixture
def repository(bundle, tmp_path) -> Path:
    """A repository that a test may damage."""
    folder = tmp_path / "repository"
    write_layout(bundle, "mlserver", folder)
    return folder


@pytest.fixture
def model(bundle, repository) -> Path:
    """Its one model."""
    return repository / bundle.manifest.name


def test_the_files_of_the_repository(bundle, repository, model):
    assert {path.name for path in repository.iterdir()} == {
        *("settings.json", "requirements.txt", "kserve.yaml"),
        bundle.manifest.name,
    }
    assert {path.name for path in model.iterdir()} == {"model-settings.json", "edgetune_runtime.py", "bundle"}
    assert {path.name for path in (model / "bundle").iterdir()} == {*bundle.manifest.files, "manifest.json"}
    settings = json.loads((model / "model-settings.json").read_text("utf-8"))
    assert settings["name"] == bundle.manifest.name
    assert settings["implementation"] == "edgetune_runtime.TextClassifier"
    assert [(one["name"], one["datatype"]) for one in settings["inputs"]] == [("text", "BYTES")]
    assert [(one["name"], one["datatype"]) for one in settings["outputs"]] == [("label", "BYTES"), ("score", "FP32")]


def test_the_service_for_kserve(bundle, repository):
    yaml = pytest.importorskip("yaml")
    runtime, service = yaml.safe_load_all((repository / "kserve.yaml").read_text("utf-8"))
    model = service["spec"]["predictor"]["model"]
    assert model["protocolVersion"] == "v2"
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] == runtime["spec"]["supportedModelFormats"][0]["name"]
    assert service["metadata"]["name"] == bundle.manifest.name


def test_the_runtime_keeps_to_what_edgetune_offers(model):
    """The names that it imports of edgetune are there: nothing else would notice before a server starts."""
    import importlib

    source = ast.parse((model / "edgetune_runtime.py").read_text("utf-8"))
    imported = [node for node in source.body if isinstance(node, ast.ImportFrom) and "edgetune" in str(node.module)]
    assert {node.module for node in imported} == {"edgetune.serve", "edgetune.serve.errors"}
    for node in imported:
        assert all(hasattr(importlib.import_module(str(node.module)), alias.name) for alias in node.names)
    from edgetune.serve import load

    called = set(re.findall(r"self\._predictor\.(\w+)", (model / "edgetune_runtime.py").read_text("utf-8")))
    assert called == {"predict_async", "codec", "head", "close"}
    assert called <= set(dir(load(model / "bundle", threads=1)))


def settings_changed(**values: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / "model-settings.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")

    return change


def runtime_changed(old: str, new: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / "edgetune_runtime.py"
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")

    return change


def damage(model: Path) -> None:
    with (model / "bundle" / "model.onnx").open("ab") as stream:
        stream.write(b"x")


def two_models(model: Path) -> None:
    other = model.parent / "other" / model.name
    other.mkdir(parents=True)
    (other / "model-settings.json").write_text((model / "model-settings.json").read_text("utf-8"), "utf-8")


def unpinned(model: Path) -> None:
    (model.parent / "requirements.txt").write_text("mlserver\nedgetune[cpu]\n")


FAULTS = {
    "another name": (settings_changed(name="other"), "is not that of its folder"),
    "no implementation": (settings_changed(implementation="TextClassifier"), "names no implementation"),
    "another class": (settings_changed(implementation="edgetune_runtime.Other"), "defines no class Other"),
    "no inputs": (settings_changed(inputs=[]), "lists no inputs"),
    "an unknown datatype": (
        settings_changed(inputs=[{"name": "text", "datatype": "STRING", "shape": [-1]}]),
        "no datatype of the version 2 protocol",
    ),
    "a shape that is none": (
        settings_changed(outputs=[{"name": "label", "datatype": "BYTES", "shape": "any"}]),
        "instead of a list of integers",
    ),
    "a bundle elsewhere": (settings_changed(parameters={"uri": "/elsewhere"}), "not the folder of the bundle"),
    "a class of its own": (runtime_changed("TextClassifier(MLModel)", "TextClassifier"), "does not derive"),
    "a blocking predict": (runtime_changed("async def predict", "def predict"), "has no `async def predict`"),
    "a runtime that does not parse": (runtime_changed("return True", "return ("), "edgetune_runtime.py is no Python"),
    "a damaged bundle": (damage, "is damaged"),
    "two models of a name": (two_models, "two models are called"),
    "no versions": (unpinned, "is not pinned"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_finds(repository, model, name):
    change, wanted = FAULTS[name]
    change(model)
    faults = check(repository)
    assert any(wanted in fault for fault in faults), faults


def test_settings_that_are_none(repository):
    (repository / "settings.json").write_text('{"parallel_workers": -1}')
    assert check(repository) == ["settings.json: parallel_workers is -1"]


ASK = """
import json, sys, urllib.request
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

url, texts = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8"))
found = []
for number, text in enumerate(texts):
    asked = InferenceRequest(id=str(number), inputs=[StringCodec.encode_input("text", [text], use_bytes=False)])
    body, headers = asked.model_dump_json(exclude_none=True).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        told = InferenceResponse.model_validate_json(answer.read())
    assert told.id == str(number)
    label, score = told.outputs
    assert (label.name, score.name) == ("label", "score")
    (one,) = StringCodec.decode_output(label)
    found.append([one, score.data[0]])
print(json.dumps(found))
"""


@pytest.fixture
def served(server_environment, run_server, free_port, repository, model):
    """MLServer on the repository: the Python of its environment and the model's address."""
    python = server_environment("mlserver", [REQUIREMENT])
    port = free_port()
    run_server(
        [python.parent / "mlserver", "start", repository],
        f"http://127.0.0.1:{port}/v2/models/{model.name}/ready",
        cwd=repository.parent,
        MLSERVER_HOST="127.0.0.1",
        MLSERVER_HTTP_PORT=str(port),
        MLSERVER_GRPC_PORT=str(free_port()),
        MLSERVER_METRICS_PORT=str(free_port()),
    )
    return python, f"http://127.0.0.1:{port}/v2/models/{model.name}"


def ask(url: str, tensor: dict[str, object], *more: dict[str, object]) -> tuple[int, dict]:
    body = json.dumps({"inputs": [tensor, *more]}).encode()
    request = urllib.request.Request(f"{url}/infer", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.servers
def test_mlserver_gives_our_labels(served, python_output, bundle, texts, answers, tmp_path):
    from edgetune.serve import load

    python, url = served
    (tmp_path / "texts.json").write_text(json.dumps(texts), "utf-8")
    found = json.loads(python_output(python, ASK, f"{url}/infer", tmp_path / "texts.json", cwd=tmp_path))
    assert [label for label, _ in found] == answers
    predictor = load(bundle.folder, threads=1)
    wanted = [predictor.predict_one(text).score for text in texts]
    assert [score for _, score in found] == pytest.approx(wanted, abs=1e-4)

    with urllib.request.urlopen(url, timeout=30) as answer:
        metadata = json.load(answer)
    assert metadata["name"] == bundle.manifest.name
    assert [one["name"] for one in metadata["outputs"]] == ["label", "score"]

    many = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    status, told = ask(url, many)
    assert status == 200
    assert told["outputs"][0]["shape"] == [len(texts), 1]

    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a text"]}
    for body, wanted in (
        (({**text, "datatype": "FP32", "data": [1.0]},), "expected BYTES"),
        ((text, text), "2 inputs were given"),
        (({**text, "shape": [0], "data": []},), "There is no text"),
    ):
        status, told = ask(url, *body)
        assert (status, wanted in told["error"]) == (400, True), (body, told)
    # MLServer itself refuses what is no JSON text.
    assert ask(url, {**text, "data": ["\ud800"]})[0] == 422
    assert ask(url, text)[0] == 200
