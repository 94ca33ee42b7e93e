"""A candidate: one graph under one scheme, with what is really inside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgetune.tune.models.stored import Stored


@dataclass(frozen=True)
class Candidate(Stored):
    """A graph made by a scheme.

    Attributes:
        scheme: the scheme's name.
        graph: the ONNX file.
        size_bytes: of the graph and its external data.
        dtypes: share of the weights' bytes by dtype, read from the file (onnx names: FLOAT, INT8, ...).
        made_by: the call that made it, with its settings.
    """

    file_name: ClassVar[str] = "candidate.json"
    noun: ClassVar[str] = "candidate"
    command: ClassVar[str] = "compress"

    scheme: str
    graph: Path
    size_bytes: int
    dtypes: dict[str, float]
    made_by: str

    @classmethod
    def of(cls, scheme: str, graph: Path, made_by: str) -> Candidate:
        """Describe a graph that has just been made, and write the facts beside it."""
        candidate = cls(scheme, graph, graph.stat().st_size, weight_dtypes(graph), made_by)
        candidate.save(graph.parent)
        return candidate


def weight_dtypes(graph: Path) -> dict[str, float]:
    """Share of the initializers' bytes by dtype, largest first, rounded to four places."""
    import onnx

    totals: dict[str, int] = {}
    for tensor in _weights(onnx.load(str(graph)).graph):
        array = onnx.numpy_helper.to_array(tensor)
        name = onnx.TensorProto.DataType.Name(tensor.data_type)
        totals[name] = totals.get(name, 0) + array.nbytes
    total = sum(totals.values()) or 1
    return {name: round(size / total, 4) for name, size in sorted(totals.items(), key=lambda item: -item[1])}


def _weights(graph: Any) -> list[Any]:
    constants = [
        attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    return [*graph.initializer, *constants]
