"""What the exporter leaves undone in a decoder graph: named open sizes, fixed ones as numbers, nothing of the sources.

Apart from export/once/rewrite.py, whose folding of every constant would write a tied embedding twice, transposed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.export.once.rewrite import strip_metadata

if TYPE_CHECKING:
    import onnx_ir

# Of each input and output by its first axes; the last axes of logits and cache are fixed sizes.
_AXES = {
    "input_ids": ("batch", "tokens"),
    "position_ids": ("batch", "tokens"),
    "attention_mask": ("batch", "total_tokens"),
    "logits": ("batch", "tokens"),
}
_PAST_AXES = ("batch", "heads", "past_tokens")
_PRESENT_AXES = ("batch", "heads", "total_tokens")


def rewrite_decoder(model: onnx_ir.Model) -> None:
    """Rewrite an `onnx_ir.Model` in place: names of open sizes, inputs that are read, no metadata, no shapes between.

    The exporter writes fixed sizes as names too ("4"), and source lines into the metadata: nine tenths of a small file.
    """
    strip_metadata(model)
    graph = model.graph
    _drop_handed_through(model)
    for value in graph.inputs:
        _name_axes(value, _AXES.get(value.name, _PAST_AXES))
    for value in graph.outputs:
        _name_axes(value, _AXES.get(value.name, _PRESENT_AXES))
    for node in graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None  # ONNX Runtime infers both; the exporter's symbols would contradict
    for value in graph.initializers.values():
        value.shape = value.type = None  # the tensor says both already


def _drop_handed_through(model: onnx_ir.Model) -> None:
    """Drop outputs that are inputs again, then inputs that nothing reads: windowed layers hand their width around."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    graph = model.graph
    for value in list(graph.outputs):
        node = value.producer()
        if node is not None and node.op_type == "Identity" and node.inputs[0].is_graph_input():
            graph.outputs.remove(value)
    RemoveUnusedNodesPass()(model)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)


def fixed_size(size: object) -> int | None:
    """A size of a shape as a number, or None where it is open."""
    if isinstance(size, int):
        return size
    name = getattr(size, "value", size)
    return int(name) if isinstance(name, str) and name.isdigit() else None


def _name_axes(value: onnx_ir.Value, names: tuple[str, ...]) -> None:
    import onnx_ir

    sizes = [fixed_size(size) for size in value.shape]
    padded = [*names, *("" for _ in sizes)]
    value.shape = onnx_ir.Shape(
        [name if size is None else size for size, name in zip(sizes, padded[: len(sizes)], strict=True)]
    )
