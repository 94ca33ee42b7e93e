"""What a manifest says of engines other than ONNX Runtime, and of a cascade. Must import msgspec alone."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

# Bounds on what a manifest may claim: a tensor's place is compared with its file before anything is read.
MOST_TENSORS = 32
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
Length = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Threshold = Annotated[float, msgspec.Meta(ge=0, le=1)]


class TensorPlace(msgspec.Struct, frozen=True):
    """Where a tensor lies in a file of the bundle: `offset` in bytes, little-endian, rows one behind the other."""

    offset: Offset
    dtype: Literal["int8", "int32", "int64", "float32"]
    shape: Annotated[list[Length], msgspec.Meta(min_length=1, max_length=2)]


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How the arrays of an input become outputs where no graph is run.

    `kind` is a name of `edgetune.serve.engines.ENGINES`; `tensors` are read from `file` by name, without their being
    stored a second time: `model.onnx` holds them as its initializers.
    """

    kind: str
    file: str = "model.onnx"
    tensors: Annotated[dict[str, TensorPlace], msgspec.Meta(max_length=MOST_TENSORS)] = {}


class CascadeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A small model that answers first, in a bundle whose `model.onnx` answers the rest.

    It answers an input itself where its best probability is at least `threshold` above its second. `scheme` names it in
    answers, `golden` is the file of its own golden answers; its inputs are encoded by the bundle's codec.
    """

    scheme: str
    engine: EngineSpec
    threshold: Threshold
    golden: str
