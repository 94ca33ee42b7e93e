"""The graph in ONNX Runtime's fused operators, proven to answer as before; what the int8 schemes start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.serve.errors import CompressError
from edgetune.tune.data.rows import Input, each_text

if TYPE_CHECKING:
    import onnx_ir

    from edgetune.compress.material import Material
    from edgetune.tune.models.encoder import Encoder

# So many texts say whether the tokenizer ever gives a token type other than 0.
_ASKED_TEXTS = 64


def unsuitable(material: Material) -> str:
    """It always applies: where no fusion fits, the graph stays as it is."""
    return ""


def compress(graph: Path, target: Path, material: Material) -> str:
    """Fuse `graph` into `target`, and prove on training texts that both answer alike.

    Raises:
        CompressError: the fused graph cannot be opened, or its logits differ by more than 1e-4 of the largest.
    """
    import onnx_ir

    from edgetune.compress.fusion import fuse
    from edgetune.compress.fusion.parity import check_parity
    from edgetune.serve.errors import BundleDamaged

    encoder = material.encoder
    texts = material.train.texts
    model = onnx_ir.load(graph)
    before = len(model.graph)
    fuse(model, material.provider, material.model.max_tokens, constant_inputs(model, encoder, texts))
    onnx_ir.save(model, target)
    try:
        difference = check_parity(graph, target, encoder, texts, provider=material.provider)
    except BundleDamaged as error:
        raise CompressError(f"The fused graph cannot be run: {error.found}") from error
    return f"edgetune.compress.fusion.fuse: {before} to {len(model.graph)} nodes, logits within {difference:.0e}"


def constant_inputs(model: onnx_ir.Model, encoder: Encoder, texts: Sequence[Input]) -> dict[str, int]:
    """The graph's inputs that this encoder gives the same number for every token of a single input."""
    if all(value.name != "token_type_ids" for value in model.graph.inputs):
        return {}
    picked = [*texts[:_ASKED_TEXTS], each_text(lambda _: "", texts[0])]
    given = [row.get("token_type_ids", []) for row in encoder.rows(picked)]
    return {"token_type_ids": 0} if not any(kind for row in given for kind in row) else {}
