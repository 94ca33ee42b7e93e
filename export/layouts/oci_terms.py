"""The words of the OCI image specification and of ModelPack: media types, annotations, and which file is what."""

from __future__ import annotations

LAYOUT_VERSION = "1.0.0"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.tar"
WEIGHT_CONFIG_TYPE = "application/vnd.cncf.model.weight.config.v1.tar"
DOC_TYPE = "application/vnd.cncf.model.doc.v1.tar"

REF_NAME = "org.opencontainers.image.ref.name"
FILE_PATH = "org.cncf.model.filepath"
FILE_METADATA = "org.cncf.model.file.metadata+json"
TAG = "latest"

_DOCUMENTS = ("report.json", "report.html", "recipe.yaml")

# ONNX's names of types to those of docs/config.md. What it has no name for (4 bits) is left out there, and told by the
# quantization.
PRECISIONS = {
    "FLOAT": "float32",
    "FLOAT16": "float16",
    "BFLOAT16": "bfloat16",
    "DOUBLE": "float64",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
}


def layer_type(name: str) -> str:
    """The media type of the layer that holds a bundle's file."""
    if ".onnx" in name:  # the graph, its variants and their external data
        return WEIGHT_TYPE
    return DOC_TYPE if name in _DOCUMENTS else WEIGHT_CONFIG_TYPE
