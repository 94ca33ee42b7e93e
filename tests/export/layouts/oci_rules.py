"""Whether a folder is an OCI image layout with one ModelPack artifact that holds one whole bundle.

Apart from the writer, and written from the specifications alone, so that a fault of the writer does not hide itself.
"""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.export.layouts.oci_terms import (
    ARTIFACT_TYPE,
    CONFIG_TYPE,
    DOC_TYPE,
    FILE_PATH,
    INDEX_TYPE,
    LAYOUT_VERSION,
    MANIFEST_TYPE,
    REF_NAME,
    WEIGHT_CONFIG_TYPE,
    WEIGHT_TYPE,
)
from edgetune.serve.bundle import Bundle
from edgetune.serve.digest import file_sha256
from edgetune.serve.errors import BundleDamaged, BundleError

LAYER_TYPES = (WEIGHT_TYPE, WEIGHT_CONFIG_TYPE, DOC_TYPE)
CONFIG_KEYS = {
    "descriptor": {
        *("createdAt", "authors", "vendor", "family", "name", "version", "title", "description", "docURL"),
        *("sourceURL", "datasetsURL", "revision", "licenses"),
    },
    "config": {"architecture", "format", "paramSize", "precision", "quantization", "capabilities"},
    "modelfs": {"type", "diffIds"},
}
MODALITIES = {"text", "image", "audio", "video", "embedding", "other"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def artifact_faults(folder: Path) -> list[str]:
    """All faults, in sentences; what stands on a faulty part is not looked at."""
    faults: list[str] = []
    layout = _object(folder / "oci-layout", faults)
    if layout and layout.get("imageLayoutVersion") != LAYOUT_VERSION:
        faults.append(f"oci-layout: imageLayoutVersion is {layout.get('imageLayoutVersion')}, not {LAYOUT_VERSION}")
    index = _object(folder / "index.json", faults)
    if not index:
        return faults
    _same(faults, "index.json", index, {"schemaVersion": 2, "mediaType": INDEX_TYPE})
    entries = index.get("manifests")
    if not isinstance(entries, list) or len(entries) != 1:
        return [*faults, "index.json must name one manifest"]
    entry = entries[0]
    faults += _descriptor_faults(folder, entry, "the manifest", (MANIFEST_TYPE,))
    if not isinstance(entry, dict) or REF_NAME not in _mapping(entry.get("annotations")):
        faults.append(f"index.json: the manifest has no {REF_NAME}, by which tools name it")
    if faults:
        return faults
    return _manifest_faults(folder, manifest_of(folder))


def unpack(folder: Path, target: Path) -> Bundle:
    """Write the files of an artifact's layers into the new folder `target`, and open the bundle that they are.

    Raises:
        BundleDamaged: the artifact does not follow its specifications, or holds no whole bundle.
    """
    faults = artifact_faults(folder)
    if faults:
        raise BundleDamaged(
            f"The artifact {folder} cannot be unpacked: " + "; ".join(faults) + ".",
            expected="an OCI layout as `edgetune pack --layout oci` writes it",
            action="pack or pull it again",
        )
    target.mkdir(parents=True)
    for layer in manifest_of(folder)["layers"]:
        blob = folder / "blobs" / layer["digest"].replace(":", "/")
        with tarfile.open(blob, "r:") as archive:
            extract(archive, target)
    return Bundle.open(target)


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest that index.json names; the folder must have been checked."""
    index = json.loads((folder / "index.json").read_bytes())
    manifest: dict[str, Any] = json.loads(_blob(folder, index["manifests"][0]["digest"]).read_bytes())
    return manifest


def _manifest_faults(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    faults: list[str] = []
    wanted = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "artifactType": ARTIFACT_TYPE}
    _same(faults, "the manifest", manifest, wanted)
    faults += _descriptor_faults(folder, manifest.get("config"), "the config", (CONFIG_TYPE,))
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not layers:
        return [*faults, "the manifest has no layers"]
    for number, layer in enumerate(layers):
        faults += _descriptor_faults(folder, layer, f"layer {number}", LAYER_TYPES)
    if faults:
        return faults
    faults += _config_faults(_object(_blob(folder, manifest["config"]["digest"]), faults), layers)
    for layer in layers:
        faults += _layer_faults(_blob(folder, layer["digest"]), _mapping(layer.get("annotations")))
    names = [_mapping(layer.get("annotations")).get(FILE_PATH) for layer in layers]
    if names != sorted(set(map(str, names))):
        faults.append("the layers are not in the order of their file names, or a name comes twice")
    return faults or _bundle_faults(folder, layers)


def _descriptor_faults(folder: Path, descriptor: object, what: str, types: tuple[str, ...]) -> list[str]:
    """Media type, digest and size as descriptor.md has them, and the blob that they tell of."""
    found = _mapping(descriptor)
    digest, size = found.get("digest"), found.get("size")
    faults = []
    if found.get("mediaType") not in types:
        faults.append(f"{what}: the media type is {found.get('mediaType')}, not {' or '.join(types)}")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return [*faults, f"{what}: {digest} is no sha256 digest"]
    blob = _blob(folder, digest)
    if not blob.is_file():
        faults.append(f"{what}: the blob {digest} is missing")
    elif blob.stat().st_size != size:
        faults.append(f"{what}: the blob {digest} has {blob.stat().st_size} bytes instead of {size}")
    elif file_sha256(blob) != digest.removeprefix("sha256:"):
        faults.append(f"{what}: the bytes of the blob {digest} have another digest")
    return faults


def _config_faults(config: Mapping[str, Any], layers: list[dict[str, Any]]) -> list[str]:
    """The rules of docs/config.md and schema/config-schema.json for what we write."""
    faults = [f"the config has no object {name}" for name in CONFIG_KEYS if not isinstance(config.get(name), dict)]
    faults += [f"the config has the unknown key {name}" for name in config if name not in CONFIG_KEYS]
    if faults:
        return faults
    for name, keys in CONFIG_KEYS.items():
        faults += [f"the config has the unknown key {name}.{key}" for key in config[name] if key not in keys]
    created = config["descriptor"].get("createdAt", "1970-01-01T00:00:00Z")
    if not _RFC3339.fullmatch(str(created)):
        faults.append(f"the config's createdAt is {created}, no time by RFC 3339")
    capabilities = _mapping(config["config"].get("capabilities"))
    told = [*capabilities.get("inputTypes", ()), *capabilities.get("outputTypes", ())]
    faults += [
        f"the config's capabilities name {kind}, which is no modality" for kind in told if kind not in MODALITIES
    ]
    if config["modelfs"].get("type") != "layers":
        faults.append("the config's modelfs.type is not layers")
    if config["modelfs"].get("diffIds") != [layer["digest"] for layer in layers]:
        faults.append("the config's diffIds are not the digests of the uncompressed layers, in order")
    return faults


def _layer_faults(blob: Path, annotations: Mapping[str, Any]) -> list[str]:
    """One regular file by the name that is annotated, with the constant attributes of a reproducible tar."""
    name = annotations.get(FILE_PATH)
    if not isinstance(name, str) or Path(name).name != name or name in {"", ".", ".."}:
        return [f"a layer's {FILE_PATH} is {name}, no plain file name"]
    try:
        with tarfile.open(blob, "r:") as archive:
            members = archive.getmembers()
    except (tarfile.TarError, OSError) as error:
        return [f"the layer of {name} is no tar: {error}"]
    if [member.name for member in members] != [name] or not members[0].isreg():
        return [f"the layer of {name} holds something else than that file"]
    said = (members[0].mtime, members[0].uid, members[0].gid, members[0].uname, members[0].gname, members[0].mode)
    if said != (0, 0, 0, "", "", 0o644):
        return [f"the tar of {name} has a time, an owner or a mode of its own, which makes its digest change"]
    return []


def extract(archive: tarfile.TarFile, target: Path) -> None:
    """All members, by the safe filter where this Python has it: 3.11 has since its fourth patch."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(target, filter="data")
    else:
        archive.extractall(target)


def _bundle_faults(folder: Path, layers: list[dict[str, Any]]) -> list[str]:
    with tempfile.TemporaryDirectory() as made:
        for layer in layers:
            with tarfile.open(_blob(folder, layer["digest"]), "r:") as archive:
                extract(archive, Path(made))
        try:
            listed = {*Bundle.open(made).manifest.files, "manifest.json"}
        except BundleError as error:
            return [error.found.replace(made, "in the layers")]
        return [f"{path.name} is no file of the bundle" for path in Path(made).iterdir() if path.name not in listed]


def _same(faults: list[str], what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            faults.append(f"{what}: {key} is {found.get(key)}, not {value}")


def _blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/")


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _object(path: Path, faults: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{path.name} is missing or no JSON ({error})")
        return {}
    if not isinstance(found, dict):
        faults.append(f"{path.name} holds no object")
        return {}
    return found
