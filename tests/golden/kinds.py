"""Bundles of the other heads and codecs, made from the golden one: its graph, tokenizer and texts, another manifest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec

from edgetune.serve.codecs import CODECS

GOLDEN = Path(__file__).parent / "bundle-v1"
TEXT_CODECS = [name for name in CODECS if not CODECS[name].in_files]
PROBLEMS = {"labels": "multi_label_classification", "number": "regression"}
# Of the golden bundle's labels (account, delivery, payment): its logits lie around 0 with either sign.
THRESHOLDS = [0.5, 0.6, 0.4]


def write_kind(folder: Path, kind: str, codec: str) -> None:
    """A whole bundle whose head is of this kind and whose inputs are of this codec; golden answers of its own."""
    from edgetune.export.once.pack import _write_golden, write_manifest
    from edgetune.serve.bundle import Bundle, HeadSpec

    shutil.copytree(GOLDEN, folder)
    manifest = Bundle.open(folder).manifest
    labels = [] if kind == "number" else manifest.labels
    head = HeadSpec(kind=kind, labels=labels, thresholds=THRESHOLDS if kind == "labels" else [])
    texts = [case.text for case in Bundle.open(folder).golden().cases]
    (folder / "golden.json").unlink()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["problem_type"] = PROBLEMS.get(kind, config["problem_type"])
    outputs = manifest.outputs
    if kind == "number":
        _keep_one_column(folder / "model.onnx")
        config["id2label"], config["label2id"] = {"0": "LABEL_0"}, {"LABEL_0": 0}
        outputs = [msgspec.structs.replace(manifest.outputs[0], shape=["batch", 1])]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    manifest = msgspec.structs.replace(
        manifest,
        name=f"{kind}-{codec}",
        labels=labels,
        outputs=outputs,
        codec=codec,
        heads=[] if kind == "label" else [head],
    )
    write_manifest(folder, manifest)
    inputs = texts if codec == "text" else list(zip(texts, reversed(texts), strict=True))
    _write_golden(folder, inputs, 0.001)
    write_manifest(folder, manifest)
    Bundle.open(folder)


def _keep_one_column(graph: Path) -> None:
    """Let the graph give the last of its three logits only."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(graph)
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == "logits":
                node.output[place] = "all_logits"
    last = numpy_helper.from_array(np.array([2], dtype=np.int64), "last_column")
    model.graph.initializer.append(last)
    model.graph.node.append(helper.make_node("Gather", ["all_logits", "last_column"], ["logits"], axis=1))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, graph)
