"""Every layout of the table: its contract, and how a folder is written whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edgetune.export import layouts
from edgetune.export.layouts import (
    LANGUAGE_LAYOUTS,
    LAYOUTS,
    ONLY,
    TARGET_LAYOUTS,
    command_to_run,
    graph_files,
    layout_named,
    model_name,
    write_layout,
)
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleError, WorkError

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "bundle-v1"


def digests(folder: Path) -> dict[str, str]:
    """What lies in a folder, byte for byte."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def renamed(bundle: Bundle, name: str) -> Bundle:
    return dataclasses.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, name=name))


CARRIED = [name for name in LAYOUTS if name not in (*LANGUAGE_LAYOUTS, *TARGET_LAYOUTS, *ONLY)]


@pytest.mark.parametrize("name", LANGUAGE_LAYOUTS)
def test_a_layout_of_language_models_refuses_a_classifier(bundle, tmp_path, name):
    with pytest.raises(BundleError, match="a layout of its task: triton, "):
        write_layout(bundle, name, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CARRIED)
def test_a_bundle_becomes_a_folder_without_faults(bundle, tmp_path, name):
    before = digests(bundle.folder)
    out = tmp_path / "deep" / "out"
    written = write_layout(bundle, name, out)
    assert written == sorted(digests(out))
    assert written
    assert layout_named(name).check(out) == []
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert digests(bundle.folder) == before


@pytest.mark.parametrize("name", CARRIED)
def test_writing_twice_gives_the_same_bytes(bundle, tmp_path, name):
    write_layout(bundle, name, tmp_path / "a")
    write_layout(bundle, name, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_a_layout_says_of_itself(bundle, tmp_path, name):
    layout = layout_named(name)
    assert layout.HELP.endswith(".")
    assert "\n" not in layout.HELP + layout.RUN
    run = command_to_run(layout, bundle, tmp_path)
    assert str(tmp_path) in run
    assert "FOLDER" not in run


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder_has_faults(tmp_path, name):
    faults = layout_named(name).check(tmp_path)
    assert faults
    assert all(isinstance(fault, str) and fault for fault in faults)


PACKS = """
import json, sys
from pathlib import Path
before = set(sys.modules)
from edgetune.export.layouts import LANGUAGE_LAYOUTS, LAYOUTS, ONLY, TARGET_LAYOUTS, write_layout
from edgetune.serve.bundle import Bundle
for name in [one for one in LAYOUTS if one not in (*LANGUAGE_LAYOUTS, *TARGET_LAYOUTS, *ONLY)]:
    write_layout(Bundle.open(sys.argv[1]), name, Path(sys.argv[2]) / name)
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(new - set(sys.stdlib_module_names))))
"""


def test_packing_needs_the_floor_alone(tmp_path):
    command = [sys.executable, "-c", PACKS, str(GOLDEN), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    floor = {"click", "edgetune", "msgspec", "numpy", "onnxruntime", "tokenizers", "typing_extensions"}
    assert set(json.loads(done.stdout)) <= floor
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(CARRIED)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("banking77", "banking77"), ("a b/c", "a-b-c"), ("../x", "x"), ("客服", "model"), ("A_1.b", "A_1.b")],
)
def test_a_name_that_folders_can_carry(bundle, name, wanted):
    assert model_name(renamed(bundle, name)) == wanted


def test_external_data_counts_as_the_graph(bundle):
    manifest = bundle.manifest
    files = {**manifest.files, "model.onnx.data": manifest.files["model.onnx"]}
    both = dataclasses.replace(bundle, manifest=msgspec.structs.replace(manifest, files=files))
    assert graph_files(bundle) == ["model.onnx"]
    assert graph_files(both) == ["model.onnx", "model.onnx.data"]


def test_a_folder_in_the_way_is_refused_and_left_as_it_is(bundle, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for replace, wanted in ((False, "exists"), (True, "holds what this layout does not write: mine.txt")):
        with pytest.raises(WorkError, match=wanted):
            write_layout(bundle, "tei", out, replace=replace)
        assert digests(tmp_path).keys() == {"out/mine.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way_is_refused(bundle, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(WorkError, match="exists"):
        write_layout(bundle, "tei", tmp_path / "out", replace=True)
    assert (tmp_path / "out").read_text() == "mine"


def test_an_older_folder_of_the_layout_gives_way(bundle, tmp_path):
    out = tmp_path / "out"
    write_layout(bundle, "tei", out)
    wanted = digests(out)
    (out / "config.json").write_text("{}")
    write_layout(bundle, "tei", out, replace=True)
    assert digests(out) == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("place", [".", "inside", "..", "../.."])
def test_a_bundle_is_not_packed_into_itself(tmp_path, place):
    folder = tmp_path / "a" / "bundle"
    shutil.copytree(GOLDEN, folder)
    before = digests(tmp_path)
    with pytest.raises(WorkError, match="lie in each other"):
        write_layout(Bundle.open(folder), "tei", folder / place, replace=True)
    assert digests(tmp_path) == before


def test_a_folder_that_breaks_the_rules_is_not_left(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(layout_named("tei"), "check", lambda folder: ["config.json has no soul"])
    with pytest.raises(WorkError, match="has no soul") as caught:
        write_layout(bundle, "tei", tmp_path / "out")
    assert "--layout" in caught.value.action
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_folder(bundle, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_layout(bundle, "tei", out)
    before = digests(out)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(WorkError, match="No space left on device"):
        write_layout(bundle, "tei", out, replace=True)
    assert digests(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_rename_that_fails_puts_the_old_folder_back(bundle, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_layout(bundle, "tei", out)
    before = digests(out)
    rename = Path.rename

    def second_fails(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(WorkError, match="Input/output error"):
        write_layout(bundle, "tei", out, replace=True)
    assert digests(out) == before


def test_every_module_of_the_folder_is_a_layout_or_part_of_one():
    folder = Path(layouts.__file__).parent
    tabled = {module.rpartition(".")[2] for module in LAYOUTS.values()}
    used = "\n".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    others = {path.stem for path in folder.glob("*.py")} - tabled - {"__init__"}
    assert [name for name in others if f"edgetune.export.layouts.{name} import" not in used] == []
