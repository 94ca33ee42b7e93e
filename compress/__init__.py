"""Makes a graph smaller and faster: one file a scheme, registered in one table."""

from edgetune.serve.dependencies import require

require("build", "onnx", "onnxruntime", "pydantic")
