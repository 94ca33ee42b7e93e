"""Bundles of the other heads and codecs, made from the golden one: its graph, tokenizer and texts, another manifest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec

from edgetune.serve.codecs import CODECS
from edgetune.serve.heads import HEADS, PER_TOKEN

GOLDEN = Path(__file__).parent / "bundle-v1"
# Those that answer for a whole text, each with each; heads on tokens have a codec of their own.
ROW_KINDS = tuple(kind for kind in HEADS if kind not in PER_TOKEN)
_OF_TOKENS = ("tokens", "words", "text-and-tokens", "text-and-words")
ROW_CODECS = tuple(codec for codec in CODECS if codec not in _OF_TOKENS and not CODECS[codec].in_files)
PROBLEMS = {"labels": "multi_label_classification", "number": "regression"}
PROMPTS = {"query": "query: ", "document": "passage: "}
TAGS = ["O", "B-thing", "I-thing"]
# Of the golden bundle's labels (account, delivery, payment): its logits lie around 0 with either sign.
THRESHOLDS = [0.5, 0.6, 0.4]


def write_kind(folder: Path, kind: str, codec: str) -> None:
    """A whole bundle whose head is of this kind and whose inputs are of this codec; golden answers of its own."""
    from edgetune.export.once.pack import _write_golden, write_manifest
    from edgetune.serve.bundle import Bundle, HeadSpec

    shutil.copytree(GOLDEN, folder)
    manifest = Bundle.open(folder).manifest
    labels = {"number": [], "embedding": [], "entities": TAGS}.get(kind, manifest.labels)
    vectors = {"width": 3, "lengths": [2], "prompts": PROMPTS} if kind == "embedding" else {}
    head = HeadSpec(kind=kind, labels=labels, thresholds=THRESHOLDS if kind == "labels" else [], **vectors)  # type: ignore[arg-type]
    texts = [case.text for case in Bundle.open(folder).golden().cases]
    (folder / "golden.json").unlink()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["problem_type"] = PROBLEMS.get(kind, config["problem_type"])
    outputs = manifest.outputs
    if kind == "number":
        _keep_one_column(folder / "model.onnx")
        config["id2label"], config["label2id"] = {"0": "LABEL_0"}, {"LABEL_0": 0}
        outputs = [msgspec.structs.replace(manifest.outputs[0], shape=["batch", 1])]
    if kind == "embedding":
        config["architectures"] = [
            name.replace("ForSequenceClassification", "Model") for name in config["architectures"]
        ]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    if kind == "entities":
        _answer_tokens(folder / "model.onnx")
        config["architectures"] = ["BertForTokenClassification"]
        config["id2label"], config["label2id"] = dict(enumerate(TAGS)), {tag: place for place, tag in enumerate(TAGS)}
        outputs = [msgspec.structs.replace(manifest.outputs[0], shape=["batch", "tokens", len(TAGS)])]
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
    inputs = texts if codec != "text-pair" else list(zip(texts, reversed(texts), strict=True))
    _write_golden(folder, inputs, 0.001)
    write_manifest(folder, manifest)
    Bundle.open(folder)


def _answer_tokens(graph: Path) -> None:
    """Let the graph give each token the text's logits, and more of one of them, by its id."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(graph)
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == "logits":
                node.output[place] = "all_logits"
    steps = np.array([[[3.0, -2.0, 1.0]]], dtype=np.float32)
    constants = {"last": np.array([2]), "middle": np.array([1]), "steps": steps, "cycle": np.array(1.7, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["input_ids"], ["ids"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", ["ids", "cycle"], ["angles"]),
            helper.make_node("Sin", ["angles"], ["waves"]),
            helper.make_node("Unsqueeze", ["waves", "last"], ["columns"]),
            helper.make_node("Mul", ["columns", "steps"], ["of_tokens"]),
            helper.make_node("Unsqueeze", ["all_logits", "middle"], ["of_texts"]),
            helper.make_node("Add", ["of_tokens", "of_texts"], ["logits"]),
        ]
    )
    shape = ["batch", "tokens", len(TAGS)]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape))
    onnx.save(model, graph)


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
