"""The folder for a board without network: what it holds, what its start refuses, and a whole one that answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgetune.export.layouts import edge, write_layout
from edgetune.serve.bundle import SIGNATURE_NAME, Bundle
from edgetune.serve.errors import WorkError

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "bundle-v1"
TEXTS = ["where is my parcel", "i still money card"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """Wheels of the right names with nothing in them."""
    folder = tmp_path_factory.mktemp("wheels")
    for name, version in edge.requirements(Bundle.open(GOLDEN), "linux-aarch64").items():
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture(scope="module")
def packed(wheels, tmp_path_factory) -> Path:
    """A folder for a board; not to be changed in place."""
    out = tmp_path_factory.mktemp("edge") / "board"
    write_layout(Bundle.open(GOLDEN), "edge", out, target=edge.EdgeTarget("linux-aarch64", "3.12", wheels))
    return out


def test_it_holds_the_bundle_the_wheels_and_a_start(packed, wheels):
    assert {path.name for path in packed.iterdir()} == {"bundle", "wheels", "edge.json", "__main__.py"}
    listed = json.loads((packed / "edge.json").read_text("utf-8"))
    assert (listed["platform"], listed["python"]) == ("linux-aarch64", "3.12")
    own = f"edgetune-{edge.__version__}-py3-none-any.whl"
    assert set(listed["wheels"]) == {own, *(path.name for path in wheels.iterdir())}
    assert edge.check(packed) == []
    names = zipfile.ZipFile(packed / "wheels" / own).namelist()
    for name in ("edgetune/cli.py", "edgetune/serve/bundle.py", "edgetune/benchmarks/measure/measure.py"):
        assert name in names
    assert not any("lab/" in name or "__pycache__" in name for name in names)


def test_what_is_missing_or_changed_is_a_fault(packed, tmp_path):
    folder = shutil.copytree(packed, tmp_path / "board")
    numpy = next((folder / "wheels").glob("numpy-*"))
    numpy.write_bytes(numpy.read_bytes() + b" ")
    next((folder / "wheels").glob("click-*")).unlink()
    (folder / "__main__.py").unlink()
    (folder / "bundle" / "model.onnx").unlink()
    faults = "; ".join(edge.check(folder))
    for words in (f"{numpy.name} has other bytes", "click", "__main__.py is missing", "is damaged"):
        assert words in faults


def test_wheels_that_cannot_be_had_leave_nothing(tmp_path):
    (tmp_path / "none").mkdir()
    target = edge.EdgeTarget("linux-x86_64", "3.11", tmp_path / "none")
    with pytest.raises(WorkError, match="cannot be had: ERROR"):
        write_layout(Bundle.open(GOLDEN), "edge", tmp_path / "out", target=target)
    assert [path.name for path in tmp_path.iterdir()] == ["none"]


def start(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-I", "-S", "-B", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=kept | environment, check=False)


def test_another_machine_and_changed_wheels_are_refused(packed, tmp_path):
    done = start(packed, "a text")
    assert (done.returncode, done.stdout) == (1, "")
    assert "was packed for Python 3.12 on linux-aarch64" in done.stderr
    assert "Traceback" not in done.stderr
    folder = shutil.copytree(packed, tmp_path / "board")
    listed = json.loads((folder / "edge.json").read_text("utf-8"))
    here = edge.here()
    listed |= {"python": here.python, "system": sys.platform, "machines": list(edge.PLATFORMS[here.platform].machines)}
    listed["wheels"] = dict.fromkeys(listed["wheels"], "0" * 64)
    (folder / "edge.json").write_text(json.dumps(listed))
    done = start(folder, "a text", EDGETUNE_EDGE_LIB=str(tmp_path / "lib"))
    assert done.returncode == 1
    assert "has other bytes than were packed" in done.stderr
    assert list((tmp_path / "lib").iterdir()) == []


def test_pictures_and_language_models_bring_what_they_need(picture_bundle):
    assert "pillow" in edge.requirements(Bundle.open(picture_bundle), "linux-aarch64")
    assert "colorama" in edge.requirements(Bundle.open(GOLDEN), "windows-x86_64")


@pytest.mark.long
def test_a_whole_folder_answers_and_measures_with_python_alone(tmp_path):
    folder = tmp_path / "board"
    bundle = Bundle.open(shutil.copytree(GOLDEN, tmp_path / "golden"))
    (bundle.folder / SIGNATURE_NAME).write_text("{}")
    write_layout(bundle, "edge", folder)
    assert (folder / "bundle" / SIGNATURE_NAME).is_file()
    done = start(folder, *TEXTS)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["delivery", "payment"], done.stderr
    [unpacked] = [path for path in (folder / "wheels").iterdir() if path.is_dir()]
    assert {"edgetune", "numpy", "onnxruntime"} <= {path.name for path in unpacked.iterdir()}
    write_layout(bundle, "edge", folder, replace=True)
    assert not unpacked.exists()
    done = start(folder, "measure", "--minutes", "0", "--threads", "1", "--json")
    assert json.loads(done.stdout)["golden"]["fp32"]["cases"] == 8, done.stderr
    done = start(folder, "verify")
    assert "8 golden answers replayed" in done.stdout
