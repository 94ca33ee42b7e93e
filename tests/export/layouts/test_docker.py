"""The Docker layout: its static rules, and the image's file system built without an engine: installed, sized, run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import msgspec
import pytest

from edgetune.export.layouts import docker
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleError
from tests.export.layouts.docker_rules import dockerfile_faults, instructions, stages

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(bundle, tmp_path):
    made = tmp_path / "layout"
    made.mkdir()
    docker.write(bundle, made)
    return made


def edit(folder, old, new, name="Dockerfile"):
    path = folder / name
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def last_stage(folder):
    parts = stages(instructions((folder / "Dockerfile").read_text("utf-8")))
    return {instruction.keyword: instruction for instruction in parts[-1]}


def test_the_build_folder(bundle, folder):
    assert docker.check(folder) == dockerfile_faults(folder) == []
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    packed = [f"bundle/{name}" for name in (*bundle.manifest.files, "manifest.json")]
    assert files == sorted([".dockerignore", "Dockerfile", "requirements.txt", "wheels/README.txt", *packed])
    last = last_stage(folder)
    assert last["USER"].text == "10001:10001"
    assert last["EXPOSE"].text == "8000"
    served = last["ENTRYPOINT"].words()
    assert served[:2] == ["edgetune", "serve"]
    assert served[2] == f"{bundle.manifest.name}=/srv/bundle"
    assert last["CMD"].words() == ["--api-key-file", "/run/secrets/edgetune-keys"]
    assert "/v2/health/ready" in last["HEALTHCHECK"].text


def test_packages_are_pinned_to_what_the_bundle_was_proven_with(bundle, tmp_path):
    versions = {"onnxruntime-gpu": "1.99.0", "numpy": "2.9.9", "torch": "3.0"}
    manifest = msgspec.structs.replace(bundle.manifest, versions=versions)
    docker.write(Bundle(bundle.folder, manifest), tmp_path)
    lines = (tmp_path / "requirements.txt").read_text("utf-8").split()
    assert "onnxruntime==1.99.0" in lines
    assert "numpy==2.9.9" in lines
    assert f"tokenizers=={docker.PINNED['tokenizers']}" in lines
    assert not any(line.startswith(("torch", "onnxruntime-gpu", "transformers")) for line in lines)
    assert docker.check(tmp_path) == []


def test_the_pins_are_the_versions_that_these_tests_run_with():
    lines = (ROOT / "constraints.txt").read_text("utf-8").split()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)
    pinned["onnxruntime"] = pinned["onnxruntime-gpu"]
    assert {name: pinned.get(name, version) for name, version in docker.PINNED.items()} == docker.PINNED


def test_a_bundle_for_a_gpu_is_refused(bundle, tmp_path):
    manifest = msgspec.structs.replace(bundle.manifest, provider="cuda")
    with pytest.raises(BundleError, match="was built for cuda"):
        docker.write(Bundle(bundle.folder, manifest), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("USER 10001:10001", "USER root", "the server would run as root"),
        ("USER 10001:10001", "USER 0:0", "the server would run as root"),
        ("USER 10001:10001", "USER server", "the user server is no number"),
        ("USER 10001:10001\n", "", "has no USER in its last stage"),
        ('RUN ["edgetune", "verify"', 'USER 10001\nRUN ["edgetune", "verify"', "USER stands before a RUN"),
        ("HEALTHCHECK", "#", "has no HEALTHCHECK"),
        ("EXPOSE 8000", "EXPOSE 80", "the port 80 needs rights"),
        ('ENTRYPOINT ["edgetune", ', "ENTRYPOINT edgetune [", "ENTRYPOINT is no JSON array"),
        ('CMD ["--api-key-file", ', "CMD [--api-key-file, ", "CMD is no JSON array"),
        ("-slim-bookworm", "@sha256:0", None),
        ("COPY bundle/", "COPY ../bundle/", "../bundle/ is not in the build folder"),
        ("COPY requirements.txt", "COPY pins.txt", "pins.txt is not in the build folder"),
        ("LABEL", "LABELS", "LABELS is no instruction"),
    ],
)
def test_faults_of_the_dockerfile(folder, old, new, fault):
    edit(folder, old, new)
    found = dockerfile_faults(folder)
    assert len(found) == (1 if fault else 0), found
    assert not fault or fault in found[0]


def test_an_image_without_a_version_is_a_fault_of_each_stage(folder):
    text = (folder / "Dockerfile").read_text("utf-8")
    python = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim-bookworm"
    assert python in text
    for image in ("python", "python:latest", "registry.example:5000/python"):
        (folder / "Dockerfile").write_text(text.replace(python, image), "utf-8")
        assert [fault.endswith(f"{image} has no version") for fault in dockerfile_faults(folder)] == [True, True]


def test_faults_of_the_packages(folder):
    path = folder / "requirements.txt"
    lines = [line for line in path.read_text("utf-8").split() if not line.startswith("h11")]
    path.write_text("\n".join([*lines, "torch==2.13.0", "pandas"]))
    assert docker.check(folder) == [
        "requirements.txt: pandas is not pinned with ==",
        "requirements.txt brings torch, which the floor does not need",
        "requirements.txt brings pandas, which the floor does not need",
        "requirements.txt does not bring h11",
    ]


def test_missing_parts_are_told(folder):
    (folder / "Dockerfile").unlink()
    shutil.rmtree(folder / "bundle")
    found = docker.check(folder)
    assert found[0] == "Dockerfile is missing"
    assert "There is no folder" in found[1]
    (folder / "Dockerfile").write_text("# nothing\nLABEL a=b\n")
    assert dockerfile_faults(folder)[0] == "Dockerfile has no FROM"


def test_what_dockerignore_keeps_out_cannot_be_copied(folder):
    edit(folder, "!wheels\n", "", ".dockerignore")
    assert dockerfile_faults(folder) == ["Dockerfile:5: wheels/ is kept out by .dockerignore"]
    (folder / ".dockerignore").unlink()
    assert ".dockerignore is missing" in dockerfile_faults(folder)


def test_instructions_are_read_as_docker_reads_them():
    found = instructions(
        "from a:1 AS x\nrun one \\\n  # a comment between\n  two\n\nCOPY --from=x --chown=1:1 /a /b\nCMD ["
    )
    assert [(each.line, each.keyword, each.text) for each in found] == [
        (1, "FROM", "a:1 AS x"),
        (2, "RUN", "one two"),
        (6, "COPY", "/a /b"),
        (7, "CMD", "["),
    ]
    assert found[2].flags == {"from": "x", "chown": "1:1"}
    assert found[3].words() is None


def install(folder, prefix, wheel):
    """The Dockerfile's own install step, its paths set to folders here; no engine, no root."""
    shutil.copyfile(wheel, folder / "wheels" / wheel.name)
    first = stages(instructions((folder / "Dockerfile").read_text("utf-8")))[0]
    step = next(each.text for each in first if each.keyword == "RUN")
    for there, here in (
        ("/packages", prefix),
        ("/wheels", folder / "wheels"),
        ("/requirements.txt", folder / "requirements.txt"),
    ):
        assert f"={there}" in step
        step = step.replace(f"={there}", f"={here}")
    tool, *arguments = step.split()
    assert tool == "pip"
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments, "--ignore-installed", "--quiet"],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def size_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.servers
def test_the_image_holds_the_floor_and_answers(
    bundle, folder, texts, answers, server_environment, run_server, free_port, tmp_path, record_property
):
    environment = server_environment("docker", []).parents[1]  # beside the wheel of this checkout
    digest = (environment / "edgetune.sha256").read_text()
    (wheel,) = environment.parent.glob(f"wheel-{digest[:12]}/edgetune-*.whl")
    prefix = tmp_path / "prefix"
    install(folder, prefix, wheel)

    packages = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    installed = {path.name.split("-")[0].lower().replace("_", "-") for path in packages.glob("*.dist-info")}
    assert installed == {*docker.PINNED, "edgetune"}
    assert not installed & set(docker.HEAVY)
    record_property("packages_bytes", size_bytes(prefix))
    record_property("bundle_bytes", size_bytes(folder / "bundle"))
    assert size_bytes(prefix) < 200e6

    # As the image runs: its file system alone, no site-packages of this environment.
    bare = {"PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    verify = subprocess.run(
        [base, "-s", prefix / "bin" / "edgetune", "verify", folder / "bundle", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **bare},
    )
    assert verify.returncode == 0, verify.stderr
    assert json.loads(verify.stdout)["golden"]["cases"] == len(bundle.golden().cases)

    port = free_port()
    served = last_stage(folder)["ENTRYPOINT"].words()
    name = served[2].partition("=")[0]
    told = [f"{name}={folder / 'bundle'}", "--host", "127.0.0.1", "--port", str(port)]
    assert [word.partition("=")[0] for word in served[2:]] == [name, "--host", "0.0.0.0", "--port", "8000"]
    ready = f"http://127.0.0.1:{port}/v2/health/ready"
    run_server([base, "-s", prefix / "bin" / "edgetune", "serve", *told], ready, cwd=tmp_path, PYTHONPATH=str(packages))
    health = last_stage(folder)["HEALTHCHECK"].text.removeprefix("CMD ")
    probe = [word.replace(":8000/", f":{port}/") for word in json.loads(health)]
    assert subprocess.run([base, *probe[1:]], timeout=30).returncode == 0
    labels = [ask(port, name, text) for text in texts]
    assert list(zip(texts, labels, strict=True)) == list(zip(texts, answers, strict=True))


def ask(port, name, text):
    body = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/{name}/infer",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        outputs = {output["name"]: output["data"] for output in json.load(answer)["outputs"]}
    (label,) = outputs["label"]
    return label
