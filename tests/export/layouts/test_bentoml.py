"""The BentoML layout: its static rules, and `bentoml serve` answering as edgetune does."""

from __future__ import annotations

import json
import urllib.request

import pytest

from edgetune.export.layouts import bentoml


@pytest.fixture
def folder(bundle, tmp_path):
    made = tmp_path / "layout"
    made.mkdir()
    bentoml.write(bundle, made)
    return made


def test_the_folder_holds_service_build_file_and_the_whole_bundle(bundle, folder):
    assert bentoml.check(folder) == []
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    packed = [f"bundle/{name}" for name in (*bundle.manifest.files, "manifest.json")]
    assert files == sorted(["bentofile.yaml", "requirements.txt", "service.py", *packed])
    build = json.loads((folder / "bentofile.yaml").read_text("utf-8"))
    assert build["service"] == "service:TextClassifier"
    assert build["python"] == {"requirements_txt": "requirements.txt"}
    compile((folder / "service.py").read_text("utf-8"), "service.py", "exec")


def test_the_build_file_is_yaml_that_says_the_same(folder):
    yaml = pytest.importorskip("yaml")
    text = (folder / "bentofile.yaml").read_text("utf-8")
    assert yaml.safe_load(text) == json.loads(text)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("class TextClassifier", "class Classifier", "service:TextClassifier, which service.py does not define"),
        ("@bentoml.service(", "@other.thing(", "TextClassifier is not decorated with bentoml.service"),
        ("@bentoml.api(", "@other.api(", "TextClassifier has no method decorated with bentoml.api"),
        ("texts: list[str]", "texts: str", "classify does not take a list of texts and give a list"),
        ("-> list[Answer]", "-> Answer", "classify does not take a list of texts and give a list"),
        ("import bentoml", "import import", "service.py is no Python"),
    ],
)
def test_faults_of_the_service(folder, old, new, fault):
    path = folder / "service.py"
    source = path.read_text("utf-8")
    assert old in source
    path.write_text(source.replace(old, new, 1), "utf-8")
    found = bentoml.check(folder)
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda build: build.update(service="service"), "names the service service, which service.py does not define"),
        (lambda build: build.pop("service"), "names the service None"),
        (lambda build: build["include"].remove("bundle/*"), "does not include bundle/*"),
        (lambda build: build.pop("python"), "does not name requirements.txt"),
    ],
)
def test_faults_of_the_build_file(folder, edit, fault):
    path = folder / "bentofile.yaml"
    build = json.loads(path.read_text("utf-8"))
    edit(build)
    path.write_text(json.dumps(build), "utf-8")
    found = bentoml.check(folder)
    assert len(found) == 1
    assert fault in found[0]


def test_faults_of_packages_and_bundle_are_told_together(folder):
    (folder / "requirements.txt").write_text("bentoml\n")
    (folder / "bundle" / "tokenizer.json").unlink()
    found = bentoml.check(folder)
    assert found[:2] == ["requirements.txt: bentoml is not pinned with ==", "requirements.txt does not bring edgetune"]
    assert "tokenizer.json is missing" in found[2]


@pytest.mark.servers
def test_the_service_gives_the_same_labels(folder, texts, answers, server_environment, run_server, free_port, tmp_path):
    python = server_environment("bentoml", [bentoml.REQUIREMENT])
    port = free_port()
    run_server(
        [python, "-m", "bentoml", "serve", ".", "--host", "127.0.0.1", "--port", port],
        f"http://127.0.0.1:{port}/readyz",
        cwd=folder,
        BENTOML_DO_NOT_TRACK="True",
        BENTOML_HOME=str(tmp_path / "home"),
    )
    labels = []
    for text in texts:
        body = json.dumps({"texts": [text]}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/classify", body, {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            (found,) = json.load(answer)
        assert set(found) == {"label", "score", "truncated"}
        labels.append(found["label"])
    assert list(zip(texts, labels, strict=True)) == list(zip(texts, answers, strict=True))
