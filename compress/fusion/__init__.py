"""Fusions: what the exporter's graph becomes so that the provider computes it fastest, each of them exact.

One file a kind of fusion, each with a function that edits an `onnx_ir.Model` in place and leaves alone what it does
not know. `fuse` says the order; `parity.py` proves the result on texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir


def fuse(model: onnx_ir.Model, provider: str, max_tokens: int, constant_inputs: dict[str, int]) -> None:
    """Apply all fusions to an `onnx_ir.Model` in place.

    Args:
        model: a classifier with inputs input_ids, attention_mask and perhaps token_type_ids, (batch, tokens) int64.
        provider: "cpu" or "cuda".
        max_tokens: the longest input that the graph will get.
        constant_inputs: inputs whose elements are all one known number, such as {"token_type_ids": 0}.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from edgetune.compress.fusion.activation import fuse_activations
    from edgetune.compress.fusion.attention import fuse_attention
    from edgetune.compress.fusion.disentangled import fuse_disentangled_attention
    from edgetune.compress.fusion.embedding import fold_embeddings
    from edgetune.compress.fusion.norm import drop_unread_sums, split_skips
    from edgetune.compress.fusion.pooling import fuse_mean_pooling
    from edgetune.compress.fusion.positions import fold_constants, fold_distances
    from edgetune.compress.fusion.projections import (
        broadcast_tables,
        fold_rotations,
        join_biases,
        join_reshapes,
        split_joint_product,
    )
    from edgetune.compress.fusion.rows import drop_rows

    _read_length_from_ids(model)
    fold_embeddings(model, max_tokens, constant_inputs)
    fold_constants(model)
    fold_rotations(model, max_tokens)
    join_reshapes(model)
    split_joint_product(model)
    fuse_attention(model, max_tokens)
    fuse_disentangled_attention(model)
    join_biases(model)
    broadcast_tables(model)
    fold_distances(model, max_tokens)
    fuse_activations(model)
    fuse_mean_pooling(model, provider)
    drop_unread_sums(model)
    drop_rows(model)
    if provider == "cpu":
        split_skips(model)
    RemoveUnusedNodesPass()(model)
    for name in constant_inputs:
        _drop_input(model, name)
    model.graph.sort()


def _read_length_from_ids(model: onnx_ir.Model) -> None:
    """All inputs have one shape: read it off input_ids, so that the others can go."""
    from edgetune.compress.fusion.surgery import graph_input, nodes_of

    ids = graph_input(model, "input_ids")
    for node in nodes_of(model, "Shape"):
        if ids is not None and node.inputs[0].is_graph_input() and len(node.inputs[0].shape) == 2:
            node.replace_input_with(0, ids)


def _drop_input(model: onnx_ir.Model, name: str) -> None:
    from edgetune.compress.fusion.surgery import graph_input

    value = graph_input(model, name)
    if value is not None and not value.uses():
        model.graph.inputs.remove(value)
