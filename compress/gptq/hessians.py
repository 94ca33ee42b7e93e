"""What each weight matrix is multiplied with: the mean of x x^T over the calibration texts, for GPTQ.

One shot: all inputs come from the float graph, with the inputs of the matrices made outputs of it, in as many passes
over the texts as the memory allowed for Hessians asks. Must not import onnx_ir at module level.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune.compress.gptq.graph_file import open_graph, write_graph
from edgetune.compress.gptq.head import before_cut
from edgetune.compress.gptq.matrices import FloatArray, Matrix, find_matrices
from edgetune.compress.gptq.prefill import prefill_feed, starting_past
from edgetune.serve.session import open_session
from edgetune.serve.stepwise.spec import GenerationSpec

if TYPE_CHECKING:
    import onnx_ir

MOST_HESSIAN_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Calibration:
    """The texts that a graph is calibrated on.

    Attributes:
        sequences: token ids of each text.
        spec: how the graph is fed.
        threads: of a run; None takes the cores that this process may use.
    """

    sequences: tuple[tuple[int, ...], ...]
    spec: GenerationSpec
    threads: int | None = None


def hessians(
    graph: Path, names: Sequence[str], calibration: Calibration, *, most_bytes: int = MOST_HESSIAN_BYTES
) -> Iterator[tuple[str, FloatArray]]:
    """The Hessian of each matrix of `names` that something multiplies by: (name, (inputs, inputs) float32).

    Matrices that share an input share the array; it is not to be written to.
    """
    model = open_graph(graph)
    matrices = [one for one in find_matrices(model) if one.name in set(names) and one.products]
    inputs = {one.name: tuple(dict.fromkeys(_source(product.node) for product in one.products)) for one in matrices}
    sizes = {source: 4 * one.inputs**2 for one in matrices for source in inputs[one.name]}
    for group in _passes(matrices, inputs, sizes, most_bytes):
        sums = _sums(graph, {source for one in group for source in inputs[one.name]}, calibration)
        for one in group:
            first, *others = (sums[source] for source in inputs[one.name])
            yield one.name, sum(others, first)


def _source(node: onnx_ir.Node) -> str:
    """The name of what a product multiplies; for the head at every position, not at the last one alone."""
    return str(before_cut(node.inputs[0]).name)


def _passes(
    matrices: Sequence[Matrix], inputs: dict[str, tuple[str, ...]], sizes: dict[str, int], most_bytes: int
) -> Iterator[list[Matrix]]:
    group: list[Matrix] = []
    held: set[str] = set()
    for one in matrices:
        wider = held | set(inputs[one.name])
        if group and sum(sizes[source] for source in wider) > most_bytes:
            yield group
            group, wider = [], set(inputs[one.name])
        group.append(one)
        held = wider
    if group:
        yield group


def _sums(graph: Path, sources: set[str], calibration: Calibration) -> dict[str, FloatArray]:
    outputs_read = sorted(sources)
    totals: dict[str, FloatArray] = {}
    tokens = 0
    with tempfile.TemporaryDirectory(dir=graph.parent, prefix=".calibration-") as scratch:
        probe = Path(scratch, "probe.onnx")
        _write_probe(graph, outputs_read, probe)
        session = open_session(probe, provider="cpu", threads=calibration.threads, spinning=False)
        past = starting_past(graph, calibration.spec)
        for ids in calibration.sequences:
            outputs = session.run(outputs_read, prefill_feed(session, ids, calibration.spec, past))
            tokens += len(ids)
            for name, values in zip(outputs_read, outputs, strict=True):
                rows = values.reshape(-1, values.shape[-1])
                total = totals.setdefault(name, np.zeros((rows.shape[1], rows.shape[1]), np.float32))
                total += rows.T @ rows
    for total in totals.values():
        total /= np.float32(tokens)
    return totals


def _write_probe(graph: Path, names: Sequence[str], probe: Path) -> None:
    """The graph with the named values as outputs too."""
    import onnx_ir

    model = open_graph(graph)
    values = {value.name: value for node in model.graph for value in node.outputs}
    values.update({value.name: value for value in model.graph.inputs})
    known = {value.name for value in model.graph.outputs}
    for name in names:
        if name in known:
            continue
        value = values[name]
        if value.type is None:
            value.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        model.graph.outputs.append(value)
    write_graph(model, probe)
