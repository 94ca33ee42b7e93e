"""A decoder graph with its weights in 4 or 8 bits: which matrix gets how many, by which method, written and proven.

Must not import onnx_ir at module level.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from edgetune.compress.gptq.coverage import Coverage, quantized_coverage
from edgetune.compress.gptq.gptq import gptq
from edgetune.compress.gptq.graph_file import open_graph, place_graph, write_graph
from edgetune.compress.gptq.head import head_product
from edgetune.compress.gptq.hessians import Calibration, hessians
from edgetune.compress.gptq.matrices import FloatArray, Matrix, find_matrices
from edgetune.compress.gptq.prefill import usable_sequences
from edgetune.compress.gptq.rounding import Blocks, nearest
from edgetune.compress.gptq.writer import write_matrix
from edgetune.compress.layers import tidy
from edgetune.serve.errors import CompressError
from edgetune.serve.stepwise.spec import GenerationSpec

if TYPE_CHECKING:
    import onnx_ir

Method = Literal["rtn", "gptq"]
BLOCK = 32
BLOCKS = (16, 32, 64, 128, 256)
BITS = (4, 8)


@dataclass(frozen=True)
class Choice:
    """How one matrix is to be quantized; `symmetric` as for `find_grid`."""

    bits: int
    block: int
    method: Method
    symmetric: bool = False

    def blocks(self, weight: FloatArray, hessian: FloatArray | None) -> Blocks:
        """The weights (outputs, inputs) on their grid."""
        if self.method == "gptq" and hessian is not None:
            return gptq(weight, hessian, self.bits, self.block, symmetric=self.symmetric)
        return nearest(weight, self.bits, self.block, symmetric=self.symmetric)


def quantize_decoder(
    graph: Path,
    target: Path,
    *,
    bits: int,
    block: int = BLOCK,
    head_bits: int | None = None,
    method: Method,
    symmetric: bool = False,
    calibration: Sequence[Sequence[int]] | None = None,
    spec: GenerationSpec,
) -> Coverage:
    """Write `graph` as `target` with its weight matrices in `bits` bits.

    Args:
        graph: a decoder graph in fp32; it stays as it is.
        target: the file to write; beside it `<name>.data` where the weights are over 1.5 GB.
        bits: 4 or 8.
        block: weights that share a scale: 16, 32, 64, 128 or 256.
        head_bits: of the head and the embeddings, where they are to be kept better; None for `bits`.
        method: "rtn" rounds to nearest; "gptq" chooses the roundings on the calibration texts, but for what is only
            looked up, or has 8 bits in a body of 4.
        symmetric: zero is the middle level of every block, as it always is in 8 bits.
        calibration: token ids of texts as the model will see them; a few thousand tokens do.
        spec: how the graph is fed.

    Returns:
        What the written file holds.

    Raises:
        CompressError: a setting is none of these, GPTQ has no texts, or nothing could be quantized. Then there is no
            `target`.
    """
    _check(bits, block, head_bits, method)
    model = open_graph(graph)
    chosen = _choices(model, find_matrices(model), Choice(bits, block, method, symmetric), head_bits)
    return write_choices(
        graph, target, chosen, calibration=(calibration or ()) if method == "gptq" else None, spec=spec
    )


def write_choices(
    graph: Path,
    target: Path,
    chosen: Mapping[str, Choice],
    *,
    calibration: Sequence[Sequence[int]] | None,
    spec: GenerationSpec,
) -> Coverage:
    """Write `graph` as `target` with each matrix that `chosen` names quantized by its own choice; else as
    `quantize_decoder`.

    Args:
        calibration: token ids for the matrices whose method is "gptq"; None where there is none.
    """
    texts = None if calibration is None else Calibration(usable_sequences(calibration, spec), spec)
    model = open_graph(graph)
    _write_all(model, graph, find_matrices(model), chosen, texts)
    tidy(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        made = Path(scratch, target.name)
        write_graph(model, made)
        coverage = quantized_coverage(made)
        place_graph(made, target)
    return coverage


def _check(bits: int, block: int, head_bits: int | None, method: str) -> None:
    for name, value in (("bits", bits), ("head_bits", head_bits)):
        if value is not None and value not in BITS:
            raise CompressError(f"{name} is {value}", expected="4 or 8")
    if block not in BLOCKS:
        raise CompressError(f"block is {block}", expected=f"one of {', '.join(map(str, BLOCKS))}")
    if method not in get_args(Method):
        raise CompressError(f"the method is {method!r}", expected=" or ".join(get_args(Method)))


def _choices(
    model: onnx_ir.Model, matrices: Sequence[Matrix], body: Choice, head_bits: int | None
) -> dict[str, Choice]:
    """How each matrix that can be quantized is to be, by name."""
    head = head_product(model)
    chosen = {}
    for one in matrices:
        block = None if one.why_left else one.block_for(body.block)
        if block is None:
            continue
        is_head = bool(one.lookups) or any(product.node is head for product in one.products)
        bits = head_bits if is_head and head_bits is not None else body.bits
        method: Method = "rtn" if bits > body.bits else body.method
        chosen[one.name] = Choice(bits, block, method, body.symmetric)
    return chosen


def _write_all(
    model: onnx_ir.Model,
    graph: Path,
    matrices: Sequence[Matrix],
    chosen: Mapping[str, Choice],
    texts: Calibration | None,
) -> None:
    waiting = {one.name: one for one in matrices if one.name in chosen}
    calibrated = [name for name in waiting if chosen[name].method == "gptq"] if texts else []
    if texts and calibrated:
        for name, hessian in hessians(graph, calibrated, texts):
            one = waiting.pop(name)
            write_matrix(model, one, _named(one, chosen[name], hessian))
    for name, one in waiting.items():
        write_matrix(model, one, _named(one, chosen[name], None))


def _named(one: Matrix, choice: Choice, hessian: FloatArray | None) -> Blocks:
    try:
        return choice.blocks(one.rows(), hessian)
    except CompressError as error:
        raise CompressError(f"{one.name}: {error.found}", expected=error.expected, action=error.action) from error
