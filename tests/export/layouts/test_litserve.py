"""The LitServe layout: its static rules, and a LitServe server that answers as edgetune does."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgetune.export.layouts import litserve
from edgetune.serve.bundle import Bundle


@pytest.fixture
def folder(bundle, tmp_path):
    made = tmp_path / "layout"
    made.mkdir()
    litserve.write(bundle, made)
    return made


def test_the_folder_holds_the_server_and_the_whole_bundle(bundle, folder):
    assert litserve.check(folder) == []
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    packed = [f"bundle/{name}" for name in (*bundle.manifest.files, "manifest.json")]
    assert files == sorted(["requirements.txt", "server.py", *packed])
    assert Bundle.open(folder / "bundle").manifest == bundle.manifest
    compile((folder / "server.py").read_text("utf-8"), "server.py", "exec")
    requirements = (folder / "requirements.txt").read_text("utf-8").split()
    assert requirements[0].startswith("edgetune[cpu]==")
    assert requirements[1:] == [litserve.REQUIREMENT]


def test_a_bundle_for_a_gpu_asks_for_that_runtime(bundle, tmp_path):
    import msgspec

    manifest = msgspec.structs.replace(bundle.manifest, provider="cuda")
    litserve.write(Bundle(bundle.folder, manifest), tmp_path)
    assert (tmp_path / "requirements.txt").read_text("utf-8").startswith("edgetune[gpu]==")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("def setup(self, device)", "def setup(self)", "TextClassifier has no method setup(self, one argument)"),
        ("def batch(", "def batched(", "TextClassifier has no method batch(self, one argument)"),
        ("litserve.LitAPI", "object", "server.py defines 0 classes of LitAPI instead of one"),
        ('if __name__ == "__main__":', "if True:", "server.py starts no LitServer behind __name__ == '__main__'"),
        ('/ "bundle"', '/ "model"', "server.py does not open the folder bundle"),
        ("import argparse", "import import", "server.py is no Python"),
    ],
)
def test_faults_of_the_server(folder, old, new, fault):
    path = folder / "server.py"
    source = path.read_text("utf-8")
    assert old in source
    path.write_text(source.replace(old, new), "utf-8")
    found = litserve.check(folder)
    assert len(found) == 1
    assert fault in found[0]


def test_faults_of_packages_and_bundle_are_told_together(folder):
    (folder / "requirements.txt").write_text("litserve>=0.2\n# edgetune==1\n")
    (folder / "bundle" / "model.onnx").write_bytes(b"")
    (folder / "server.py").unlink()
    found = litserve.check(folder)
    assert found[:3] == [
        "server.py is missing",
        "requirements.txt: litserve>=0.2 is not pinned with ==",
        "requirements.txt does not bring edgetune",
    ]
    assert "model.onnx has 0 bytes" in found[3]
    shutil.rmtree(folder / "bundle")
    assert "There is no folder" in litserve.check(folder)[3]


def ask(port, value, seconds=60):
    body = json.dumps(value).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", body, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.servers
def test_the_server_gives_the_same_labels(folder, texts, answers, server_environment, run_server, free_port):
    python = server_environment("litserve", [litserve.REQUIREMENT])
    port = free_port()
    server = run_server([python, "server.py", "--port", port], f"http://127.0.0.1:{port}/health", cwd=folder)
    labels = []
    for text in texts:
        status, answer = ask(port, {"text": text})
        assert (status, set(answer)) == (200, {"label", "score", "truncated"})
        labels.append(answer["label"])
    assert list(zip(texts, labels, strict=True)) == list(zip(texts, answers, strict=True))

    # Unreadable requests among good ones: each is refused by itself, in whatever batch it came to lie.
    asked = [{"text": texts[0]}, {"text": 7}, {"other": 1}, {"text": "\ud800"}, {"text": texts[1]}] * 8
    with ThreadPoolExecutor(max_workers=len(asked)) as pool:
        found = list(pool.map(lambda value: ask(port, value), asked))
    assert [status for status, _ in found] == [200, 422, 422, 422, 200] * 8
    assert {answer["label"] for _, answer in found[0::5]} == {answers[0]}
    assert all(answer["error"] for status, answer in found if status == 422)

    # SIGTERM, as containers are stopped, leaves no worker behind that goes on answering.
    server.terminate()
    server.wait(timeout=60)
    with pytest.raises(urllib.error.URLError):
        ask(port, {"text": texts[0]}, seconds=10)
