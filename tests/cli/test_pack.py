"""`edgetune pack`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgetune.export.layouts import LAYOUTS, layout_named

GOLDEN = Path(__file__).parent.parent / "golden" / "bundle-v1"


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_it_says_what_was_written_and_what_runs_it(edgetune, tmp_path):
    out = tmp_path / "served"
    ended = edgetune("pack", GOLDEN, "--layout", "triton", "-o", out)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    listed = [line.split() for line in lines[: len(files_of(out))]]
    assert [name for _, name in listed] == files_of(out)
    assert [size for size, _ in listed] == [f"{(out / name).stat().st_size:,}" for _, name in listed]
    assert lines[-2:] == ["To run it:", f"  tritonserver --model-repository={out}"]
    assert layout_named("triton").check(out) == []


def test_json_is_one_document(edgetune, tmp_path):
    out = tmp_path / "served"
    ended = edgetune("pack", GOLDEN, "--layout", "mlserver", "--out", out, "--json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert set(found) == {"layout", "folder", "files", "run"}
    assert (found["layout"], found["folder"]) == ("mlserver", str(out))
    assert found["files"] == {name: (out / name).stat().st_size for name in files_of(out)}
    assert found["run"].endswith(f"mlserver start {out}")


def test_the_list_needs_nothing(edgetune):
    ended = edgetune("pack", "--list")
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines()] == list(LAYOUTS)
    listed = json.loads(edgetune("pack", "--list", "--json").out)
    assert [one["layout"] for one in listed] == list(LAYOUTS)
    assert all(one["help"] and one["run"] for one in listed)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "Missing BUNDLE, --layout, --out"),
        ((GOLDEN,), "Missing --layout, --out"),
        ((GOLDEN, "--layout", "tei"), "Missing --out"),
        ((GOLDEN, "--layout", "tritton", "-o", "x"), "'tritton' is not one of"),
        (
            (GOLDEN, "--layout", "tei", "-o", "x", "--work", "."),
            "--work is for hf, gguf, sentence-transformers: tei is made of the bundle",
        ),
        (
            (GOLDEN, "--layout", "hf", "-o", "x", "--weights", "bundle"),
            "--weights is for gguf: hf takes them as they are",
        ),
    ],
)
def test_what_is_missing_is_a_usage_error(edgetune, arguments, wanted):
    ended = edgetune("pack", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert wanted in ended.err


def test_a_damaged_bundle_is_not_packed(edgetune, tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "bundle")
    (tmp_path / "bundle" / "model.onnx").write_bytes(b"no graph")
    ended = edgetune("pack", tmp_path / "bundle", "--layout", "tei", "-o", tmp_path / "out")
    assert (ended.code, ended.out) == (1, "")
    assert "is damaged: model.onnx has 8 bytes" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_in_the_way(edgetune, tmp_path):
    out = tmp_path / "out"
    assert edgetune("pack", GOLDEN, "--layout", "tei", "-o", out).code == 0
    before = {name: (out / name).read_bytes() for name in files_of(out)}
    ended = edgetune("pack", GOLDEN, "--layout", "tei", "-o", out)
    assert (ended.code, ended.out) == (1, "")
    assert f"The output {out} exists." in ended.err
    assert "--force" in ended.err
    (out / "model.onnx").unlink()
    assert edgetune("pack", GOLDEN, "--layout", "tei", "-o", out, "--force").code == 0
    assert {name: (out / name).read_bytes() for name in files_of(out)} == before


def test_another_layout_does_not_replace_it(edgetune, tmp_path):
    out = tmp_path / "out"
    assert edgetune("pack", GOLDEN, "--layout", "mlserver", "-o", out).code == 0
    before = files_of(out)
    ended = edgetune("pack", GOLDEN, "--layout", "tei", "-o", out, "--force")
    assert (ended.code, ended.out) == (1, "")
    assert "holds what this layout does not write" in ended.err
    assert files_of(out) == before
