"""Turns a tuned model into a graph, proves that both answer alike, and packs bundles."""

from edgetune.serve.dependencies import require

require("build", "onnx", "onnxruntime", "onnxscript", "torch", "transformers")
