"""How much of a graph is really quantized, read back from the written file.

A quantizer that finds nothing to do says nothing (ONNX Runtime's leaves GPT-2's Gemm and every tied head as they
are), so the file alone is believed. Must not import onnx_ir at module level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.compress.gptq.graph_file import file_bytes, open_graph
from edgetune.compress.gptq.matrices import LARGEST_BLOCK, LEAST_BLOCK, Matrix, find_matrices
from edgetune.compress.gptq.stored import STORED_INPUTS, stored_values
from edgetune.serve.errors import CompressError

if TYPE_CHECKING:
    import onnx_ir

# A scheme whose quantized matrices take less of the file than this is mostly floats, whatever it is called.
MOSTLY = 0.5


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix in few bits: the operators that read it, its parameters, and the bytes it takes with its scales."""

    name: str
    readers: tuple[str, ...]
    bits: int
    block: int
    parameters: int
    stored_bytes: int


@dataclass(frozen=True)
class LeftMatrix:
    """A matrix that stayed as it was, and why."""

    name: str
    parameters: int
    stored_bytes: int
    why: str


@dataclass(frozen=True)
class Coverage:
    """What a graph's file holds.

    Attributes:
        size_bytes: of the file, and of the weights beside it where they have one of their own.
        dtypes: share of the weights' bytes by dtype (onnx names), largest first.
        weight_bytes: of everything stored.
        quantized: the matrices in few bits.
        left: the matrices that are not.
    """

    size_bytes: int
    dtypes: dict[str, float]
    weight_bytes: int
    quantized: tuple[QuantizedMatrix, ...]
    left: tuple[LeftMatrix, ...]

    @property
    def share_of_bytes(self) -> float:
        """The quantized matrices' bytes, scales included, of all that is stored."""
        return sum(one.stored_bytes for one in self.quantized) / self.weight_bytes if self.weight_bytes else 0.0

    @property
    def share_of_parameters(self) -> float:
        """The quantized matrices' parameters of those of all matrices; one stored for two uses counts once."""
        inside = sum(one.parameters for one in self.quantized)
        total = inside + sum(one.parameters for one in self.left)
        return inside / total if total else 0.0

    def sentence(self) -> str:
        """What is quantized and what is not, for a report."""
        bits = sorted({one.bits for one in self.quantized})
        quantized = f"{len(self.quantized)} matrices in {' and '.join(map(str, bits))} bits" if bits else "no matrix"
        left = ", ".join(f"{one.name} ({one.why})" for one in self.left)
        return (
            f"{quantized}, {self.share_of_parameters:.1%} of the parameters of all matrices and "
            f"{self.share_of_bytes:.1%} of the bytes stored" + (f"; left: {left}" if left else "")
        )

    def remarks(self, block: int) -> tuple[str, ...]:
        """What a scheme's name does not say: narrower blocks than `block`, or most bytes left in floats."""
        if not self.quantized:
            return ()
        remarks = []
        narrow = [one.block for one in self.quantized if one.block < block]
        if narrow:
            sizes = " or ".join(map(str, sorted(set(narrow))))
            remarks.append(
                f"{len(narrow)} of {len(self.quantized)} matrices have {sizes} weights to a scale: they are too narrow "
                f"for {block}"
            )
        if self.share_of_bytes < MOSTLY and self.left:
            largest = max(self.left, key=lambda one: one.stored_bytes)
            remarks.append(
                f"only {self.share_of_bytes:.0%} of the bytes stored are quantized: {len(self.left)} matrices stay in "
                f"floats, the largest {largest.name} ({largest.why})"
            )
        return tuple(remarks)


def read_coverage(graph: Path) -> Coverage:
    """What the file at `graph` holds, quantized or not."""
    model = open_graph(graph)
    totals: dict[str, int] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        totals[tensor.dtype.name] = totals.get(tensor.dtype.name, 0) + tensor.nbytes
    total = sum(totals.values())
    shares = {name: round(size / total, 4) for name, size in sorted(totals.items(), key=lambda item: -item[1])}
    quantized = tuple(_quantized(model))
    scales = {value.name for node in model.graph if node.op_type in STORED_INPUTS for value in stored_values(node)}
    left = tuple(
        LeftMatrix(one.name, one.parameters, one.stored_bytes, _why_left(one))
        for one in find_matrices(model)
        if one.name not in scales
    )
    return Coverage(file_bytes(graph), shares, total, quantized, left)


def quantized_coverage(graph: Path) -> Coverage:
    """`read_coverage` of a file that is to be called quantized.

    Raises:
        CompressError: nothing in it is.
    """
    coverage = read_coverage(graph)
    if coverage.quantized:
        return coverage
    reasons = ", ".join(f"{one.name}: {one.why}" for one in coverage.left[:5])
    raise CompressError(
        f"no weight of {graph} is quantized ({reasons or 'it has no weight matrix'})",
        expected="MatMul, Gemm or Gather with a constant float32 matrix",
        action="take the scheme fp32 for this model",
    )


def _why_left(one: Matrix) -> str:
    if one.why_left or one.block_for(LARGEST_BLOCK) is not None:
        return one.why_left or "not asked for"
    return f"{one.inputs} wide, which no block of {LEAST_BLOCK} or more divides"


def _quantized(model: onnx_ir.Model) -> Iterator[QuantizedMatrix]:
    readers: dict[str, list[Any]] = {}
    for node in model.graph:
        if node.op_type in STORED_INPUTS:
            readers.setdefault(stored_values(node)[0].name, []).append(node)
    for name, nodes in readers.items():
        stored = {value.name: value.const_value for node in nodes for value in stored_values(node)}
        bits = nodes[0].attributes.get_int("bits", 4)
        first = nodes[0]
        if first.op_type == "MatMulNBits":
            parameters = first.attributes.get_int("K") * first.attributes.get_int("N")
        else:
            parameters = stored[name].size * 8 // bits
        yield QuantizedMatrix(
            name=name,
            readers=tuple(sorted({node.op_type for node in nodes})),
            bits=bits,
            block=first.attributes.get_int("block_size", 128),
            parameters=parameters,
            stored_bytes=sum(tensor.nbytes for tensor in stored.values()),
        )
