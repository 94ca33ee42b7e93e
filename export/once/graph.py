"""The one file that knows the exporter: a tuned model becomes an ONNX graph through transformers' OnnxExporter.

That API is young, so nothing else imports it. Attention is opened eager: the exporter's fusions see through the
plain products and not through a scaled-dot-product call.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune.serve.errors import ExportError
from edgetune.tune.data.rows import Input
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.models.stored import Stored

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


@dataclass(frozen=True)
class Graph(Stored):
    """An exported graph.

    Attributes:
        path: its file.
        nodes: how many nodes it has.
        max_abs_diff: largest logit difference from the model, over the texts of the parity gate.
        fused: whether the exporter's fusions were kept; False where only the plain graph could be made or proven.
    """

    file_name: ClassVar[str] = "graph.json"
    noun: ClassVar[str] = "graph"
    command: ClassVar[str] = "export"

    path: Path
    nodes: int
    max_abs_diff: float
    fused: bool = True


def export_graph(tuned: TunedModel, texts: Sequence[Input], provider: str, folder: Path, *, fused: bool = True) -> Path:
    """Export the merged model with dynamic batch and length, fused for `provider` ("cpu" or "cuda").

    Unfused, the attention is the one transformers takes by itself: as unlike the fused way as it can be.

    Raises:
        ExportError: the exporter cannot trace this architecture.
    """
    model = open_model(tuned.model_folder, attention="eager" if fused else None)
    example = Encoder.of(tuned).example(texts)
    return write_graph(model, example, folder, tuned.base_id, provider if fused else None)


def write_graph(
    model: Model,
    example: dict[str, Any],
    folder: Path,
    base_id: str,
    fusions: str | None,
    outputs: Sequence[str] = (),
) -> Path:
    """Write the graph of an open model to `folder`/model.onnx.

    Args:
        model: in evaluation mode, on the CPU.
        example: a batch of it, of two rows at least, of unlike lengths.
        base_id: what the user calls the model, for messages.
        fusions: the provider to fuse for, or None for the plain graph.
        outputs: names of the outputs, in order, where the model's own are not to stay.

    Raises:
        ExportError: the exporter cannot trace this architecture.
    """
    import onnx_ir
    from transformers.exporters import OnnxConfig, OnnxExporter

    from edgetune.export.once.rewrite import rewrite

    config = OnnxConfig(dynamic=True, ort_fusions=fusions)
    pictures = example.get("pixel_values")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where torch tells its steps; stdout may be one JSON document
            program = OnnxExporter().export(model, example, config=config).program
        _rename(program.graph, outputs)
        rewrite(program, () if pictures is None else tuple(pictures.shape[1:]))
    except Exception as error:
        # torch.export and onnxscript raise dozens of unrelated types; each means that this model has no graph.
        raise ExportError(
            f"transformers' exporter cannot make a graph of {base_id}, a {model.config.model_type!r} model: "
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}",
            expected="an architecture that can be traced",
            action="choose another --base; docs/tuning.md has a table of architectures",
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "model.onnx"
    onnx_ir.save(program, target)
    return target


def _rename(graph: Any, outputs: Sequence[str]) -> None:
    for value, name in zip(graph.outputs, outputs, strict=bool(outputs)):
        value.name = name


def count_nodes(path: Path) -> int:
    """Nodes of a graph, from its file."""
    import onnx

    return len(onnx.load(str(path), load_external_data=False).graph.node)
