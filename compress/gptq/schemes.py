"""The ladder of schemes for a decoder, smallest first; each is made of the fp32 graph.

8 bits by GPTQ too: on stories260K it leaves a KL divergence of 0.00075 nats where rounding leaves 0.00085, and most of
either comes from the kernel's rounding of activations. No fp16: ONNX Runtime's CPU provider has no fp16 products on
x86, so such a graph is cast back to floats as it loads. Must not import onnx_ir at module level.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetune.compress.gptq.coverage import Coverage, read_coverage
from edgetune.compress.gptq.graph_file import open_graph, place_graph, write_graph
from edgetune.compress.gptq.quantization import BLOCK, Choice, Method, quantize_decoder, write_choices
from edgetune.serve.errors import CompressError
from edgetune.serve.stepwise.spec import GenerationSpec


@dataclass(frozen=True)
class LanguageScheme:
    """One way to store the weights of a decoder.

    Attributes:
        name: as recipes and reports have it.
        bits: of the weight matrices; None for floats.
        head_bits: of the head and the embeddings, where they are kept better.
        method: how levels are chosen; None for floats.
        is_symmetric: whether zero is the middle of the 16 levels, as in llama.cpp's Q4_0; of 8 bits it always is.
        is_mixed: whether each matrix has its own bits and block, chosen by what it loses; `bits` are then the fewest.
        block: weights that share a scale, where the name says it; None leaves it to who writes. ONNX Runtime multiplies
            groups of 128, which GPTQ is mostly used with, half again as fast as blocks of 32, which round less away.
    """

    name: str
    bits: int | None
    head_bits: int | None
    method: Method | None
    block: int | None = None
    is_mixed: bool = False
    is_symmetric: bool = False

    @property
    def is_calibrated(self) -> bool:
        """Whether making it needs texts."""
        return self.method == "gptq"


LADDER = (
    LanguageScheme("int4_g128", 4, None, "gptq", block=128),
    LanguageScheme("int4", 4, None, "gptq"),
    LanguageScheme("int4_head8", 4, 8, "gptq"),
    LanguageScheme("mixed", 4, None, "gptq", is_mixed=True),
    LanguageScheme("int8", 8, None, "gptq"),
    LanguageScheme("fp32", None, None, None),
)
# Tried only where a recipe names them: what a search would choose is never one of these.
BY_NAME = (LanguageScheme("q4_0", 4, None, "gptq", block=32, is_symmetric=True),)
SCHEMES = {scheme.name: scheme for scheme in (*LADDER, *BY_NAME)}


def scheme_named(name: str) -> LanguageScheme:
    """The scheme of that name.

    Raises:
        CompressError: there is none.
    """
    if name not in SCHEMES:
        raise CompressError(f"there is no scheme {name!r} for a decoder", expected=" or ".join(SCHEMES))
    return SCHEMES[name]


def write_scheme(
    scheme: LanguageScheme,
    graph: Path,
    target: Path,
    *,
    calibration: Sequence[Sequence[int]] | None,
    spec: GenerationSpec,
    block: int = BLOCK,
    choices: Mapping[str, Choice] | None = None,
) -> Coverage:
    """Write the fp32 decoder `graph` as `target` under a scheme; what the file then holds.

    Args:
        scheme: one of `SCHEMES`.
        graph: the decoder graph in fp32.
        target: the file to write.
        calibration: token ids of texts, for a scheme that `is_calibrated`.
        spec: how the graph is fed.
        block: weights that share a scale, where the scheme leaves it open.
        choices: of each matrix by name, for a scheme that `is_mixed` (allocation.py).

    Raises:
        CompressError: as `quantize_decoder` does.
    """
    if scheme.is_mixed:
        if choices is None:
            raise CompressError("the scheme mixed has no choice of bits", expected="one for each matrix")
        return write_choices(graph, target, choices, calibration=calibration or (), spec=spec)
    if scheme.bits is None or scheme.method is None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            write_graph(open_graph(graph), Path(scratch, target.name))
            place_graph(Path(scratch, target.name), target)
        return read_coverage(target)
    return quantize_decoder(
        graph,
        target,
        bits=scheme.bits,
        block=scheme.block or block,
        head_bits=scheme.head_bits,
        method=scheme.method,
        symmetric=scheme.is_symmetric,
        calibration=calibration if scheme.is_calibrated else None,
        spec=spec,
    )
