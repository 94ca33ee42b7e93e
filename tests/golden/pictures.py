"""A bundle of pictures whose answers are known by hand: its graph gives the mean of each channel."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgetune.serve.bundle import Bundle

LABELS = ["red", "green", "blue"]
COLOURS = {"red": (230, 20, 10), "green": (10, 200, 30), "blue": (15, 25, 240)}
SIDE = 8


def picture(colour: str, width: int = 24, height: int = 16, mode: str = "RGB"):
    """A plain picture of Pillow in one of COLOURS."""
    from PIL import Image

    return Image.new("RGB", (width, height), COLOURS[colour]).convert(mode)


def picture_bytes(colour: str, kind: str = "PNG", **options) -> bytes:
    """The file of such a picture."""
    content = io.BytesIO()
    picture(colour).save(content, format=kind, **options)
    return content.getvalue()


def write_picture_bundle(folder: Path) -> Bundle:
    """A whole bundle without a report; golden answers of its own."""
    from edgetune.export.once.pack import _write_golden, write_manifest
    from edgetune.serve.bundle import BaseIdentity, Bundle, Manifest, TensorSpec
    from edgetune.tune.data.data_urls import as_data_url

    folder.mkdir(parents=True)
    _write_graph(folder / "model.onnx")
    settings = {"size": [SIDE, SIDE], "scale": 1 / 255, "normalizations": [{"mean": [0.5] * 3, "std": [0.5] * 3}]}
    (folder / "picture.json").write_text(json.dumps(settings), "utf-8")
    config = {"id2label": dict(enumerate(LABELS)), "architectures": ["ResNetForImageClassification"]}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    manifest = Manifest(
        format=1,
        name="colours",
        task="image-classification",
        labels=LABELS,
        inputs=[TensorSpec("pixel_values", "float32", ["batch", 3, SIDE, SIDE])],
        outputs=[TensorSpec("logits", "float32", ["batch", 3])],
        max_tokens=1,
        scheme="fp32",
        provider="cpu",
        dtypes={"FLOAT": 1.0},
        base=BaseIdentity("tiny", "sha256:" + "0" * 64),
        data_digest="sha256:" + "0" * 64,
        versions={"edgetune": "0.1.0"},
        created="2026-01-01T00:00:00+00:00",
        files={},
        codec="picture",
        columns=["image"],
    )
    write_manifest(folder, manifest)
    _write_golden(folder, [as_data_url(picture_bytes(colour)) for colour in COLOURS], 0.001)
    write_manifest(folder, manifest)
    return Bundle.open(folder)


def _write_graph(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["means", "factor"], ["logits"]),
    ]
    factor = numpy_helper.from_array(np.float32(4).reshape(1), "factor")
    graph = helper.make_graph(nodes, "colours", [pixels], [logits], [factor])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
