"""The ModelPack artifact: media types and digests by the specifications, a round trip, and every fault found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile

import pytest

from edgetune.export.layouts import oci
from edgetune.serve import load
from edgetune.serve.digest import folder_sha256
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.golden import replay_golden
from tests.export.layouts.oci_rules import artifact_faults, unpack


@pytest.fixture
def artifact(bundle, tmp_path):
    folder = tmp_path / "artifact"
    folder.mkdir()
    oci.write(bundle, folder)
    return folder


def blob(folder, digest):
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def put(folder, value):
    """Store a blob and return its digest and size, as a descriptor has them."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def read_manifest(folder):
    index = json.loads((folder / "index.json").read_bytes())
    return index, json.loads(blob(folder, index["manifests"][0]["digest"]).read_bytes())


def change_manifest(folder, change):
    """Change the manifest and let the index name the new one, so that only what `change` did is wrong."""
    index, manifest = read_manifest(folder)
    change(manifest)
    index["manifests"][0].update(put(folder, manifest))
    (folder / "index.json").write_text(json.dumps(index))


def change_config(folder, change):
    def both(manifest):
        config = json.loads(blob(folder, manifest["config"]["digest"]).read_bytes())
        change(config)
        manifest["config"].update(put(folder, config))

    change_manifest(folder, both)


def change_layer(folder, name, content):
    """Put other bytes into the layer of a file, with the digest everywhere told anew."""

    def both(manifest):
        layer = next(one for one in manifest["layers"] if one["annotations"]["org.cncf.model.filepath"] == name)
        layer.update(put(folder, content))
        config = json.loads(blob(folder, manifest["config"]["digest"]).read_bytes())
        config["modelfs"]["diffIds"] = [one["digest"] for one in manifest["layers"]]
        manifest["config"].update(put(folder, config))

    change_manifest(folder, both)


def test_the_artifact_follows_the_specifications(bundle, artifact):
    assert artifact_faults(artifact) == oci.check(artifact) == []
    assert json.loads((artifact / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index, manifest = read_manifest(artifact)
    assert index["schemaVersion"] == manifest["schemaVersion"] == 2
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert manifest["mediaType"] == index["manifests"][0]["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    types = {layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"] for layer in manifest["layers"]}
    assert set(types) == {*bundle.manifest.files, "manifest.json"}
    assert types["model.onnx"] == "application/vnd.cncf.model.weight.v1.tar"
    assert types["tokenizer.json"] == types["manifest.json"] == "application/vnd.cncf.model.weight.config.v1.tar"
    assert types["report.html"] == "application/vnd.cncf.model.doc.v1.tar"
    for descriptor in (index["manifests"][0], manifest["config"], *manifest["layers"]):
        content = blob(artifact, descriptor["digest"]).read_bytes()
        assert len(content) == descriptor["size"]
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
    # Nothing lies there that nothing names.
    assert len(list((artifact / "blobs" / "sha256").iterdir())) == 2 + len(manifest["layers"])


def test_the_config_tells_of_the_model(bundle, artifact):
    _, manifest = read_manifest(artifact)
    config = json.loads(blob(artifact, manifest["config"]["digest"]).read_bytes())
    assert set(config) == {"descriptor", "config", "modelfs"}
    assert config["descriptor"]["name"] == bundle.manifest.name
    assert config["descriptor"]["createdAt"] == bundle.manifest.created
    assert config["config"]["format"] == "onnx"
    assert config["config"]["capabilities"] == {"inputTypes": ["text"], "outputTypes": ["other"]}
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in manifest["layers"]]}


def test_the_same_bundle_gives_the_same_bytes(bundle, artifact, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(bundle.folder, copied)
    for path in copied.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    again = tmp_path / "again"
    again.mkdir()
    oci.write(type(bundle).open(copied), again)
    assert folder_sha256(again) == folder_sha256(artifact)


def test_a_round_trip_gives_the_identical_bundle(bundle, artifact, tmp_path):
    unpacked = unpack(artifact, tmp_path / "unpacked")
    names = [*bundle.manifest.files, "manifest.json"]
    assert sorted(path.name for path in unpacked.folder.iterdir()) == sorted(names)
    for name in names:
        assert (unpacked.folder / name).read_bytes() == (bundle.folder / name).read_bytes()
    replay = replay_golden(load(unpacked.folder, threads=1))
    assert replay.max_abs_diff <= replay.tolerance


def test_a_tar_reader_of_another_make_sees_one_plain_file(artifact):
    _, manifest = read_manifest(artifact)
    for layer in manifest["layers"]:
        header = blob(artifact, layer["digest"]).read_bytes()[:512]
        # POSIX.1-1988 fields: name, mode, uid, gid, size, mtime; then the type flag and the magic.
        assert header[:100].rstrip(b"\0").decode() == layer["annotations"]["org.cncf.model.filepath"]
        mode, uid, gid, size, mtime = (
            int(header[start:end].strip(b" \0"), 8)
            for start, end in ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148))
        )
        said = json.loads(layer["annotations"]["org.cncf.model.file.metadata+json"])
        assert (mode, uid, gid, mtime) == (0o644, 0, 0, 0) == (said["mode"], said["uid"], said["gid"], 0)
        assert size == said["size"]
        assert header[156:157] == chr(said["typeflag"]).encode() == b"0"
        assert header[257:262] == b"ustar"


def test_one_changed_byte_of_any_blob_is_found(artifact):
    for path in sorted((artifact / "blobs" / "sha256").iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert any(f"sha256:{path.name} have another digest" in fault for fault in artifact_faults(artifact)), path
        assert oci.check(artifact) == [f"the bytes of the blob {path.name} differ"]
        path.write_bytes(content)
    assert artifact_faults(artifact) == []


def test_missing_and_short_blobs_are_told_with_their_digests(artifact):
    _, manifest = read_manifest(artifact)
    first, second = (blob(artifact, layer["digest"]) for layer in manifest["layers"][:2])
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    found = artifact_faults(artifact)
    assert len(found) == 2
    assert found[0] == f"layer 0: the blob sha256:{first.name} is missing"
    assert found[1].startswith(f"layer 1: the blob sha256:{second.name} has ")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda m: m.update(artifactType="application/x"), "the manifest: artifactType is application/x"),
        (lambda m: m.update(mediaType="application/x"), "the manifest: mediaType is application/x"),
        (lambda m: m["config"].update(mediaType="application/x"), "the config: the media type is application/x"),
        (lambda m: m["layers"][0].update(mediaType="application/x"), "layer 0: the media type is application/x"),
        (lambda m: m["layers"][0].update(digest="sha256:ABC"), "layer 0: sha256:ABC is no sha256 digest"),
        (lambda m: m["layers"][0].update(digest="sha256:../x"), "layer 0: sha256:../x is no sha256 digest"),
        (lambda m: m["layers"][0].update(size=3), "bytes instead of 3"),
        (lambda m: m.update(layers=[]), "the manifest has no layers"),
        (lambda m: m.update(layers=[1]), "layer 0: the media type is None"),
        (lambda m: m["layers"].reverse(), "the config's diffIds are not the digests"),
        (lambda m: m["layers"].reverse(), "not in the order of their file names"),
        (
            lambda m: m["layers"][0]["annotations"].update({"org.cncf.model.filepath": "../x"}),
            "filepath is ../x, no plain file name",
        ),
        (
            lambda m: m["layers"][0]["annotations"].update({"org.cncf.model.filepath": "a"}),
            "the layer of a holds something else than that file",
        ),
    ],
)
def test_faults_of_the_manifest(artifact, change, fault):
    change_manifest(artifact, change)
    assert any(fault in found for found in artifact_faults(artifact)), artifact_faults(artifact)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: c.pop("modelfs"), "the config has no object modelfs"),
        (lambda c: c.update(other=1), "the config has the unknown key other"),
        (lambda c: c["config"].update(colour="red"), "the config has the unknown key config.colour"),
        (lambda c: c["descriptor"].update(createdAt="yesterday"), "createdAt is yesterday"),
        (lambda c: c["config"]["capabilities"].update(outputTypes=["labels"]), "name labels, which is no modality"),
        (lambda c: c["modelfs"].update(type="files"), "modelfs.type is not layers"),
        (lambda c: c["modelfs"]["diffIds"].pop(), "the config's diffIds are not the digests"),
    ],
)
def test_faults_of_the_config(artifact, change, fault):
    change_config(artifact, change)
    assert any(fault in found for found in artifact_faults(artifact)), artifact_faults(artifact)


def tar_of(name, content, **attributes):
    import io

    stream = io.BytesIO()
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"no tar at all", "the layer of config.json is no tar"),
        (tar_of("config.json", b"{}", mtime=5), "has a time, an owner or a mode of its own"),
        (tar_of("config.json", b"{}", uid=1000), "has a time, an owner or a mode of its own"),
        (tar_of("/etc/passwd", b"{}"), "the layer of config.json holds something else"),
        (tar_of("config.json", b"", type=tarfile.SYMTYPE, linkname="/etc"), "the layer of config.json holds something"),
        (tar_of("config.json", b"{}"), "config.json has 2 bytes instead of"),
    ],
)
def test_faults_of_a_layer(artifact, tmp_path, content, fault):
    change_layer(artifact, "config.json", content)
    assert any(fault in found for found in artifact_faults(artifact)), artifact_faults(artifact)
    with pytest.raises(BundleDamaged, match="cannot be unpacked"):
        unpack(artifact, tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("oci-layout", '{"imageLayoutVersion": "2.0.0"}', "imageLayoutVersion is 2.0.0, not 1.0.0"),
        ("oci-layout", "[]", "oci-layout holds no object"),
        ("index.json", "{", "index.json is missing or no JSON"),
        ("index.json", '{"schemaVersion": 2, "manifests": []}', "index.json must name one manifest"),
        ("index.json", '{"schemaVersion": 1, "manifests": [7]}', "index.json: schemaVersion is 1, not 2"),
    ],
)
def test_faults_of_the_layout(artifact, name, content, fault):
    (artifact / name).write_text(content)
    assert any(fault in found for found in artifact_faults(artifact)), artifact_faults(artifact)


def test_an_empty_folder_is_no_artifact(tmp_path):
    assert len(artifact_faults(tmp_path)) == 2
