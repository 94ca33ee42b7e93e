"""Bundles on Ray Serve: two replicas on a local Ray answer as predict does. Needs the extras ray, serve and cpu."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgetune.serve import load
from edgetune.serve.errors import BundleError, EdgetuneError, InputError
from edgetune.serve.ray import app

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-v1"
TEXTS = ["where is my parcel", "i still money card", "my card has not arrived"]


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({}, InputError, "bundle is missing"),
        ({"bundle": ""}, InputError, "bundle is missing"),
        ({"bundle": str(GOLDEN), "replicas": "2"}, InputError, "no argument replicas"),
        ({"bundle": str(GOLDEN), "num_replicas": "many"}, InputError, "num_replicas is 'many'"),
        ({"bundle": str(GOLDEN), "num_replicas": "0"}, InputError, "num_replicas is '0'"),
        ({"bundle": str(GOLDEN), "truncate": "maybe"}, InputError, "truncate is 'maybe'"),
        ({"bundle": str(GOLDEN), "name": "../x"}, EdgetuneError, "no name for a model"),
        ({"bundle": "/nowhere/at/all"}, BundleError, "no folder"),
        ("/nowhere/at/all", BundleError, "no folder"),
    ],
)
def test_arguments_that_are_none(args, error, words):
    with pytest.raises(error, match=words):
        app(args)


@pytest.mark.servers
def test_two_replicas_answer_as_predict_does(tmp_path):
    pytest.importorskip("ray.serve")
    httpx = pytest.importorskip("httpx")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "/tmp", "RAY_DEDUP_LOGS": "0"}
    arguments = ("edgetune.serve.ray:app", f"bundle={GOLDEN}", "name=toy", "num_replicas=2", "threads=1")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "serve", "run", *arguments],
            cwd=tmp_path, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            url = "http://127.0.0.1:8000"
            deadline = time.monotonic() + 180
            while not is_ready(httpx, url):
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.5)
            expected = load(GOLDEN, threads=1).predict(TEXTS)
            for _ in range(20):
                for text, answer in zip(TEXTS, expected, strict=True):
                    inputs = [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]
                    body = {"inputs": inputs, "outputs": [{"name": "label"}, {"name": "scores"}]}
                    answered = httpx.post(url + "/v2/models/toy/infer", json=body, timeout=20)
                    outputs = {output["name"]: output["data"] for output in answered.json()["outputs"]}
                    assert outputs["label"] == [answer.label]
                    assert outputs["scores"] == pytest.approx(list(answer.scores.values()), abs=1e-5)
            refused = httpx.post(url + "/v2/models/other/infer", content=b"{}", timeout=20)
            assert (refused.status_code, list(refused.json())) == (404, ["error"])
            assert replicas() == 2
        finally:
            process.terminate()
            process.wait(60)


def is_ready(httpx, url):
    try:
        return httpx.get(url + "/v2/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def replicas():
    """Processes of replicas, by the title that Ray gives them."""
    titles = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return sum(title.startswith(b"ray::ServeReplica") for title in titles)
