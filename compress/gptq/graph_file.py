"""A decoder graph's file: opened with its weights on disk, written in one piece up to 1.5 GB and in two above.

A protobuf message ends at 2 GB, so larger weights go into a file beside the graph. Must not import onnx_ir at module
level: `edgetune --help` loads this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.serve.errors import CompressError

if TYPE_CHECKING:
    import onnx_ir

MOST_INLINE_BYTES = 1_500_000_000


def open_graph(path: Path) -> onnx_ir.Model:
    """The graph as an `onnx_ir.Model`; weights in a file beside it stay there until they are read.

    Raises:
        CompressError: the file is no ONNX graph.
    """
    import onnx_ir
    from google.protobuf.message import DecodeError

    try:
        return onnx_ir.load(path)
    except (DecodeError, FileNotFoundError) as error:
        raise CompressError(f"{path} cannot be opened: {error}", expected="a decoder graph in ONNX") from error


def write_graph(model: onnx_ir.Model, path: Path, *, most_inline_bytes: int = MOST_INLINE_BYTES) -> None:
    """Write an `onnx_ir.Model` as `path`, with its weights in `<name>.data` where they are larger than the limit.

    The names of source files and lines that the exporter left on every node go: most of a small graph is made of them.
    Not to be written over the file that `model` was opened from; `place_graph` renames what is whole.
    """
    import onnx_ir

    _strip(model)
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    if size > most_inline_bytes:
        onnx_ir.save(model, path, external_data=f"{path.name}.data")
    else:
        onnx_ir.external_data.load_to_model(model)
        onnx_ir.save(model, path)


def weights_file(path: Path) -> Path:
    """Where the weights of the graph at `path` are when they are not in it."""
    return path.with_name(f"{path.name}.data")


def place_graph(made: Path, target: Path) -> None:
    """Rename a graph that was written under its own name in another folder of the same disk; the weights first."""
    if weights_file(made).exists():
        weights_file(made).replace(weights_file(target))
        made.replace(target)
    else:
        made.replace(target)
        weights_file(target).unlink(missing_ok=True)


def file_bytes(path: Path) -> int:
    """Size of a graph's file and of the weights' file beside it, where it has one."""
    data = weights_file(path)
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


def _strip(model: onnx_ir.Model) -> None:
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
