"""The MLflow layout: its static rules, `mlflow.pyfunc.load_model`, and `mlflow models serve`, as edgetune answers."""

from __future__ import annotations

import json
import shutil
import urllib.request

import pytest

from edgetune.export.layouts import mlflow
from edgetune.serve import load
from edgetune.serve.bundle import Bundle

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

LOAD = """
import json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
texts = json.load(open(sys.argv[2]))
frame = model.predict(pandas.DataFrame({"text": texts}))
single = [model.predict(pandas.DataFrame({"text": [text]})).iloc[0].to_dict() for text in texts]
listed = model.predict([{"text": text} for text in texts])
example = model.predict(model.input_example) if model.input_example is not None else None
print(json.dumps({
    "frame": frame.to_dict("list"), "single": single, "listed": listed.to_dict("list"),
    "example": example.to_dict("list"), "columns": model.metadata.get_input_schema().input_names(),
}))
"""


@pytest.fixture
def folder(bundle, tmp_path):
    made = tmp_path / "layout"
    made.mkdir()
    mlflow.write(bundle, made)
    return made


def change(folder, edit):
    path = folder / "MLmodel"
    model = json.loads(path.read_text("utf-8"))
    edit(model)
    path.write_text(json.dumps(model), "utf-8")


def test_the_folder_is_a_python_function_model(bundle, folder):
    assert mlflow.check(folder) == []
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    packed = [f"bundle/{name}" for name in (*bundle.manifest.files, "manifest.json")]
    own = ["MLmodel", "code/edgetune_pyfunc.py", "conda.yaml", "python_env.yaml", "requirements.txt"]
    assert files == sorted([*own, "input_example.json", "serving_input_example.json", *packed])
    assert Bundle.open(folder / "bundle").manifest == bundle.manifest
    model = json.loads((folder / "MLmodel").read_text("utf-8"))
    flavor = model["flavors"]["python_function"]
    assert (flavor["loader_module"], flavor["code"], flavor["data"]) == ("edgetune_pyfunc", "code", "bundle")
    assert [column["name"] for column in json.loads(model["signature"]["inputs"])] == ["text"]
    assert [column["name"] for column in json.loads(model["signature"]["outputs"])] == ["label", "score", "truncated"]


def test_all_yaml_files_are_yaml_that_says_the_same(folder):
    yaml = pytest.importorskip("yaml")
    for name in ("MLmodel", "conda.yaml", "python_env.yaml"):
        text = (folder / name).read_text("utf-8")
        assert yaml.safe_load(text) == json.loads(text)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda m: m.pop("flavors"), "MLmodel has no flavour python_function"),
        (lambda m: m["flavors"]["python_function"].update(code="src"), "code is src, no folder here"),
        (lambda m: m["flavors"]["python_function"].pop("data"), "data is None, no folder here"),
        (lambda m: m["flavors"]["python_function"].pop("loader_module"), "None.py is missing"),
        (lambda m: m["flavors"]["python_function"].pop("env"), "env has no conda"),
        (lambda m: m["flavors"]["python_function"]["env"].update(conda="c.yaml"), "c.yaml is missing"),
        (lambda m: m["signature"].update(inputs=[{"type": "string"}]), "signature.inputs is no JSON list of columns"),
        (
            lambda m: m["signature"].update(outputs='[{"name": "label"}]'),
            "signature.outputs is no JSON list of columns",
        ),
        (lambda m: m.pop("signature"), "signature.inputs is no JSON list of columns"),
        (lambda m: m.pop("saved_input_example_info"), "MLmodel has no saved_input_example_info"),
        (lambda m: m["saved_input_example_info"].update(artifact_path="MLmodel"), "is no frame with the column text"),
        (
            lambda m: m["saved_input_example_info"].update(serving_input_path="input_example.json"),
            "is not the request for that example",
        ),
    ],
)
def test_faults_of_the_model(folder, edit, fault):
    change(folder, edit)
    assert any(fault in found for found in mlflow.check(folder)), mlflow.check(folder)


def test_faults_of_code_packages_and_bundle_are_told_together(folder):
    (folder / "code" / "edgetune_pyfunc.py").write_text("def _load_pyfunc(): ...\n")
    (folder / "requirements.txt").write_text("mlflow-skinny\n")
    shutil.rmtree(folder / "bundle")
    found = mlflow.check(folder)
    assert "MLmodel: data is bundle, no folder here" in found
    assert "edgetune_pyfunc has no _load_pyfunc(path), which MLflow calls" in found
    assert "requirements.txt: mlflow-skinny is not pinned with ==" in found
    assert "requirements.txt does not bring pandas" in found
    assert any("There is no folder" in fault for fault in found)


@pytest.mark.servers
def test_pyfunc_loads_the_folder_and_gives_the_same_labels(
    bundle, folder, texts, answers, server_environment, python_output, tmp_path
):
    python = server_environment("mlflow", mlflow.REQUIREMENTS)
    asked = tmp_path / "texts.json"
    asked.write_text(json.dumps(texts))
    output = python_output(python, LOAD, folder, asked, cwd=tmp_path, **QUIET)
    found = json.loads(output.splitlines()[-1])
    assert [answer["label"] for answer in found["single"]] == answers
    # All at once: the same batches as edgetune's own, so the same labels and the same scores.
    whole = load(bundle.folder, threads=1).predict(texts)
    for asked_as in ("frame", "listed"):
        assert found[asked_as]["label"] == [answer.label for answer in whole]
        assert found[asked_as]["score"] == pytest.approx([answer.score for answer in whole], abs=1e-5)
    golden = bundle.golden().cases[0]
    assert found["example"]["label"] == [golden.label]
    assert found["columns"] == ["text"]


@pytest.mark.servers
def test_models_serve_gives_the_same_labels(folder, texts, answers, server_environment, run_server, free_port):
    python = server_environment("mlflow", mlflow.REQUIREMENTS)
    port = free_port()
    run_server(
        [
            *(python, "-m", "mlflow", "models", "serve", "-m", folder, "--env-manager", "local"),
            *("--host", "127.0.0.1", "--port", port, "--workers", "1"),
        ],
        f"http://127.0.0.1:{port}/ping",
        cwd=folder,
        PATH=str(python.parent) + ":/usr/bin:/bin",  # MLflow starts uvicorn by its name
        **QUIET,
    )
    labels = []
    for text in texts:
        body = json.dumps({"dataframe_split": {"columns": ["text"], "data": [[text]]}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            (found,) = json.load(answer)["predictions"]
        assert set(found) == {"label", "score", "truncated"}
        labels.append(found["label"])
    assert list(zip(texts, labels, strict=True)) == list(zip(texts, answers, strict=True))
