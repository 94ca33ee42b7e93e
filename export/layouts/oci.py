"""A ModelPack artifact as an OCI image layout: a bundle that registries store and clusters mount.

By the CNCF ModelPack specification (github.com/modelpack/model-spec: docs/spec.md, docs/config.md, docs/annotations.md)
and the OCI image specification 1.1 (image-layout.md, manifest.md, descriptor.md). One layer is a tar of one file, so
that two bundles which share a tokenizer share its layer. The same bundle gives the same bytes, wherever it is packed.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from edgetune.export.layouts.oci_terms import (
    ARTIFACT_TYPE,
    CONFIG_TYPE,
    FILE_METADATA,
    FILE_PATH,
    INDEX_TYPE,
    LAYOUT_VERSION,
    MANIFEST_TYPE,
    PRECISIONS,
    REF_NAME,
    TAG,
    layer_type,
)
from edgetune.serve.bundle import MANIFEST_NAME, Bundle
from edgetune.serve.digest import file_sha256
from edgetune.serve.heads import describe_heads

HELP = "ModelPack artifact as an OCI image layout, for registries and Kubernetes image volumes."
RUN = f"oras cp --from-oci-layout FOLDER:{TAG} REGISTRY/REPOSITORY:{TAG}"

_MODE = 0o644
_EPOCH = "1970-01-01T00:00:00Z"


def write(bundle: Bundle, folder: Path) -> None:
    """Fill `folder` with oci-layout, index.json and one blob for the manifest, its config and each file."""
    (folder / "blobs" / "sha256").mkdir(parents=True)
    layers, diff_ids = [], []
    for name in sorted((*bundle.manifest.files, MANIFEST_NAME)):
        content = (bundle.folder / name).read_bytes()
        layer = _blob(folder, layer_type(name), _tar(name, content))
        layer["annotations"] = {FILE_PATH: name, FILE_METADATA: _metadata(name, len(content))}
        layers.append(layer)
        diff_ids.append(layer["digest"])  # the layers are not compressed: their digest is that of the tar itself
    created = bundle.manifest.created
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": _blob(folder, CONFIG_TYPE, _json(_model_config(bundle, diff_ids))),
        "layers": layers,
        "annotations": {
            "org.opencontainers.image.title": bundle.manifest.name,
            "org.opencontainers.image.created": created,
        },
    }
    entry = _blob(folder, MANIFEST_TYPE, _json(manifest))
    entry |= {"artifactType": ARTIFACT_TYPE, "annotations": {REF_NAME: TAG}}
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}
    (folder / "index.json").write_bytes(_json(index))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": LAYOUT_VERSION}))


def check(folder: Path) -> list[str]:
    """The faults of an artifact's blobs, by their digests; what they say follows from the bundle alone."""
    blobs = sorted((folder / "blobs" / "sha256").glob("*"))
    faults = [f"{name} is missing" for name in ("oci-layout", "index.json") if not (folder / name).is_file()]
    return faults + [f"the bytes of the blob {path.name} differ" for path in blobs if file_sha256(path) != path.name]


def _blob(folder: Path, media_type: str, content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _tar(name: str, content: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), _MODE, 0
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _metadata(name: str, size: int) -> str:
    """The file's attributes as the specification's JSON; 48 is the type flag of a regular file, "0" in a tar."""
    fields = {"name": name, "mode": _MODE, "uid": 0, "gid": 0, "size": size, "mtime": _EPOCH, "typeflag": 48}
    return json.dumps(fields, separators=(",", ":"))


def _model_config(bundle: Bundle, diff_ids: list[object]) -> dict[str, object]:
    manifest = bundle.manifest
    weights = {dtype: share for dtype, share in manifest.dtypes.items() if share >= 0.01}
    known = {PRECISIONS[dtype] for dtype in weights if dtype in PRECISIONS}
    return {
        "descriptor": {
            "createdAt": manifest.created,
            "name": manifest.name,
            "title": f"{manifest.name}: {manifest.task}, {describe_heads(manifest.answer_heads, 0)}",
            "description": f"Tuned from {manifest.base.id}, packed as an edgetune bundle of format {manifest.format}.",
            "revision": manifest.files["model.onnx"].sha256,
        },
        "config": {
            "architecture": "transformer",
            "format": "onnx",
            "precision": ",".join(sorted(known)),
            "quantization": manifest.scheme,
            "capabilities": {"inputTypes": ["text"], "outputTypes": ["other"]},
        },
        "modelfs": {"type": "layers", "diffIds": diff_ids},
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
