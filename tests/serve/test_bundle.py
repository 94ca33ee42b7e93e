"""Opening a bundle: what is refused, by which error, in which words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgetune.serve import load
from edgetune.serve.bundle import Bundle, Manifest
from edgetune.serve.errors import BundleDamaged, BundleError, BundleFormatError, EdgetuneError


def refused(folder: Path, kind: type[EdgetuneError]) -> EdgetuneError:
    """The error of opening `folder`, which must be of exactly this kind, by both ways in."""
    with pytest.raises(kind) as caught:
        Bundle.open(folder)
    with pytest.raises(kind) as again:
        load(folder)
    assert type(caught.value) is kind
    assert str(again.value) == str(caught.value)
    return caught.value


def test_a_whole_bundle_opens(bundle_copy):
    bundle = Bundle.open(str(bundle_copy.folder))
    assert bundle.folder == bundle_copy.folder
    assert isinstance(bundle.manifest, Manifest)
    assert bundle.size_bytes == sum(path.stat().st_size for path in bundle_copy.folder.iterdir())


def test_a_changed_byte_is_found(bundle_copy):
    content = bytearray(bundle_copy.path("model.onnx").read_bytes())
    content[20_000] ^= 1
    bundle_copy.path("model.onnx").write_bytes(content)
    error = refused(bundle_copy.folder, BundleDamaged)
    assert error.found == f"The bundle {bundle_copy.folder} is damaged: model.onnx has changed bytes (SHA-256 differs)."
    assert "manifest.json" in error.expected
    assert "copy the bundle again" in error.action


def test_a_truncated_file_is_found_by_its_size(bundle_copy):
    content = bundle_copy.path("model.onnx").read_bytes()
    bundle_copy.path("model.onnx").write_bytes(content[:20_000])
    assert (
        f"model.onnx has 20,000 bytes instead of {len(content):,}" in refused(bundle_copy.folder, BundleDamaged).found
    )


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json", "golden.json", "report.html"])
def test_a_missing_file_is_found(bundle_copy, name):
    bundle_copy.path(name).unlink()
    assert f"{name} is missing" in refused(bundle_copy.folder, BundleDamaged).found


def test_a_folder_in_place_of_a_file_is_a_missing_file(bundle_copy):
    bundle_copy.path("model.onnx").unlink()
    bundle_copy.path("model.onnx").mkdir()
    assert "model.onnx is missing" in refused(bundle_copy.folder, BundleDamaged).found


def test_a_file_that_may_not_be_read_is_told(bundle_copy, monkeypatch):
    def denied(path: Path, size: int) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("edgetune.serve.bundle.sha256_regular", denied)
    assert "model.onnx cannot be read (Permission denied)" in refused(bundle_copy.folder, BundleDamaged).found


def test_all_faults_are_told_at_once(bundle_copy):
    bundle_copy.path("config.json").unlink()
    bundle_copy.path("report.json").write_text("{}")
    bundle_copy.path("recipe.yaml").write_bytes(bundle_copy.path("recipe.yaml").read_bytes().swapcase())
    found = refused(bundle_copy.folder, BundleDamaged).found
    assert "config.json is missing; " in found
    assert "recipe.yaml has changed bytes" in found
    assert "report.json has 2 bytes instead of" in found


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_what_answers_must_be_listed(bundle_copy, name):
    bundle_copy.change_manifest(lambda manifest: manifest["files"].pop(name))
    assert f"damaged: {name} is not listed." in refused(bundle_copy.folder, BundleDamaged).found


def test_unlisted_files_are_ignored(bundle_copy):
    bundle_copy.path("notes.txt").write_text("mine")
    assert "notes.txt" not in Bundle.open(bundle_copy.folder).manifest.files


def test_the_proof_may_be_left_off_a_small_device(bundle_copy):
    for name in ("report.json", "report.html", "recipe.yaml", "special_tokens_map.json", "tokenizer_config.json"):
        bundle_copy.path(name).unlink()
        bundle_copy.change_manifest(lambda manifest, name=name: manifest["files"].pop(name))
    assert load(bundle_copy.folder, threads=1).predict_one("where is my parcel").label == "delivery"


def test_without_verifying_damage_is_not_looked_for(bundle_copy):
    bundle_copy.path("report.html").unlink()
    assert Bundle.open(bundle_copy.folder, verify=False).manifest.name == "bundle-v1"


def test_a_newer_format_is_named(bundle_copy):
    # A newer manifest may look quite unlike ours: only its format is read.
    bundle_copy.path("manifest.json").write_text('{"format": 3, "files": "elsewhere"}')
    error = refused(bundle_copy.folder, BundleFormatError)
    assert error.found == f"{bundle_copy.folder} has bundle format 3."
    assert error.expected.startswith("format 2")
    assert error.action == "install a newer edgetune"


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True, None])
def test_a_format_that_never_was_is_damage(bundle_copy, value):
    bundle_copy.change_manifest(lambda manifest: manifest.update(format=value))
    assert "manifest.json is no manifest" in refused(bundle_copy.folder, BundleDamaged).found


@pytest.mark.parametrize(
    "content",
    [b"", b"no JSON", b"[1]", b'"text"', b"{", b'{"format": 1}', b'{"name": "\xff"}', b'{"a":' + b"[" * 100_000],
    ids=["empty", "words", "list", "string", "cut", "keys missing", "not UTF-8", "too deep"],
)
def test_a_manifest_that_is_none(bundle_copy, content):
    bundle_copy.path("manifest.json").write_bytes(content)
    error = refused(bundle_copy.folder, BundleDamaged)
    assert error.found.startswith(f"{bundle_copy.path('manifest.json')} is no manifest: ")


def test_a_wrong_value_is_told_by_its_place(bundle_copy):
    bundle_copy.change_manifest(lambda manifest: manifest["files"]["model.onnx"].update(bytes="many"))
    assert "`$.files[...].bytes`" in refused(bundle_copy.folder, BundleDamaged).found


@pytest.mark.parametrize("tokens", [0, -5])
def test_an_input_of_no_tokens_is_refused(bundle_copy, tokens):
    bundle_copy.change_manifest(lambda manifest: manifest.update(max_tokens=tokens))
    assert "`$.max_tokens`" in refused(bundle_copy.folder, BundleDamaged).found


@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "a/b", "a/../model.onnx", "..", ".", "", "x/"])
@pytest.mark.parametrize("verify", [True, False])
def test_names_that_lead_out_of_the_folder_are_refused(bundle_copy, name, verify):
    (bundle_copy.folder.parent / "x").write_text("outside")
    bundle_copy.change_manifest(lambda manifest: manifest["files"].update({name: {"bytes": 7, "sha256": "0" * 64}}))
    with pytest.raises(BundleDamaged, match="names files outside the bundle: ") as caught:
        Bundle.open(bundle_copy.folder, verify=verify)
    assert caught.value.found.endswith(f": {name}.")
    assert caught.value.expected == "plain file names"


def test_no_folder(tmp_path):
    error = refused(tmp_path / "gone", BundleError)
    assert error.found == f"There is no folder {tmp_path / 'gone'}."
    assert f"edgetune build --base MODEL --data FILE --out {tmp_path / 'gone'}" in error.action


def test_a_file_is_no_folder(bundle_copy):
    path = bundle_copy.path("manifest.json")
    assert refused(path, BundleError).found == f"There is no folder {path}."


def test_a_folder_without_a_manifest(bundle_copy):
    bundle_copy.path("manifest.json").unlink()
    assert (
        refused(bundle_copy.folder, BundleError).found == f"{bundle_copy.folder} is no bundle: it has no manifest.json."
    )


def test_a_manifest_that_cannot_be_read(bundle_copy):
    bundle_copy.path("manifest.json").unlink()
    bundle_copy.path("manifest.json").mkdir()
    assert "manifest.json cannot be read: Is a directory." in refused(bundle_copy.folder, BundleError).found


def test_keys_of_later_releases_are_ignored(bundle_copy):
    bundle_copy.change_manifest(lambda manifest: manifest.update(colour="blue"))
    assert Bundle.open(bundle_copy.folder).manifest.format == 1


@pytest.mark.parametrize(
    "key",
    sorted(
        {*Manifest.__struct_fields__}
        - {"format", "runtime", "variants", "generation", "model_digest", "codec", "heads", "columns"}
        - {"strip_inputs", "engine", "cascade", "targets", "manifest_digest"}
    ),
)
def test_every_key_is_needed(bundle_copy, key):
    bundle_copy.change_manifest(lambda manifest: manifest.pop(key))
    assert f"missing required field `{key}`" in refused(bundle_copy.folder, BundleDamaged).found


def test_a_bundle_may_be_moved(bundle_copy, tmp_path):
    moved = tmp_path / "élan vital" / "b"
    shutil.copytree(bundle_copy.folder, moved)
    assert load(moved, threads=1).predict_one("where is my parcel").label == "delivery"


def test_golden_answers_that_cannot_be_read(bundle_copy):
    bundle = Bundle.open(bundle_copy.folder)
    for content in (b"{}", b"\xff", json.dumps({"tolerance": "much", "cases": []}).encode()):
        bundle_copy.path("golden.json").write_bytes(content)
        with pytest.raises(BundleDamaged, match=r"golden\.json cannot be read: "):
            bundle.golden()
    bundle_copy.path("golden.json").unlink()
    with pytest.raises(BundleDamaged, match=r"golden\.json cannot be read: "):
        bundle.golden()
