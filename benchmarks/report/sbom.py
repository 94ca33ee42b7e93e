"""The bill of materials of a bundle: CycloneDX 1.6 (ECMA-424) in JSON, with the model, its base, its data, the files,
and the packages that it was built and proven with.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping

from edgetune.benchmarks.report.summary import metric_of
from edgetune.serve.bundle import Manifest
from edgetune.serve.json_types import JsonObject
from edgetune.serve.report import BuildReport

SBOM_NAME = "sbom.cdx.json"
# What answering needs of the packages that a manifest names; the others were there when it was built.
RUNTIME = ("numpy", "onnxruntime", "onnxruntime-gpu", "tokenizers", "edgetune")
_SPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562's name space of URLs
_MODEL, _BASE, _DATA = "model", "base", "data"


def bill_of_materials(manifest: Manifest, report: BuildReport, licence: str, files: Mapping[str, str]) -> str:
    """The document as JSON.

    Args:
        manifest: of the bundle.
        report: of its build.
        licence: of the base, an identifier; "unknown" where its folder names none.
        files: SHA-256 in hex of every file but this one and the manifest, by name.
    """
    libraries = [_library(name, version) for name, version in sorted(manifest.versions.items())]
    content = [_file(name, digest) for name, digest in sorted(files.items())]
    identity = hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()
    needed = [part["bom-ref"] for part in libraries if part["scope"] == "required"]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SPACE, identity)}",
        "version": 1,
        "metadata": {
            "timestamp": manifest.created,
            "tools": {"components": [_library("edgetune", report.edgetune) | {"bom-ref": "tool"}]},
            "component": _model(manifest, report, identity),
        },
        "components": [_base(manifest, licence), _data(report), *libraries, *content],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [_BASE, _DATA, *needed, *(part["bom-ref"] for part in content)]},
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _model(manifest: Manifest, report: BuildReport, identity: str) -> JsonObject:
    name, value, *_ = metric_of(report)
    card: JsonObject = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": manifest.task,
            "modelArchitecture": manifest.scheme,
            "datasets": [{"ref": _DATA}],
        },
    }
    if value == value:
        card["quantitativeAnalysis"] = {
            "performanceMetrics": [{"type": name, "value": f"{value:.6f}", "slice": "test"}]
        }
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": manifest.name,
        "version": identity[:16],
        "modelCard": card,
    }


def _base(manifest: Manifest, licence: str) -> JsonObject:
    licences = {} if licence == "unknown" else {"licenses": [{"license": {"name": licence}}]}
    algorithm, _, digest = manifest.base.digest.partition(":")
    hashes = {"hashes": [{"alg": "SHA-256", "content": digest}]} if algorithm == "sha256" and len(digest) == 64 else {}
    return {"type": "machine-learning-model", "bom-ref": _BASE, "name": manifest.base.id, **hashes, **licences}


def _data(report: BuildReport) -> JsonObject:
    algorithm, _, digest = report.data.digest.partition(":")
    hashes = {"hashes": [{"alg": "SHA-256", "content": digest}]} if algorithm == "sha256" and len(digest) == 64 else {}
    rows = [{"name": f"edgetune:rows:{part}", "value": str(count)} for part, count in report.data.rows.items()]
    return {"type": "data", "bom-ref": _DATA, "name": "training data", **hashes, "properties": rows}


def _library(name: str, version: str) -> JsonObject:
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "scope": "required" if name in RUNTIME else "excluded",
    }


def _file(name: str, digest: str) -> JsonObject:
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }
