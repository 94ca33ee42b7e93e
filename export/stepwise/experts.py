"""The experts of a mixture as matrices of their own, which the schemes of few bits can then take one by one.

transformers stores the experts of a layer in one tensor of three dimensions, and the exporter's graph splits it as it
runs. Nothing is computed otherwise: each piece is what the split gave. Must not import onnx_ir at module level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetune.compress.fusion.surgery import add_constant, constant
from edgetune.compress.layers import tidy

if TYPE_CHECKING:
    import onnx_ir


def part_experts(model: onnx_ir.Model) -> int:
    """Replace every constant (experts, inputs, outputs) that an `onnx_ir.Model` splits by its matrices, in place.

    Returns:
        how many matrices there are now in the place of such constants.
    """
    made = 0
    for node in list(model.graph):
        stacked = node.inputs[0].const_value if node.op_type == "Split" else None
        if stacked is None or len(stacked.shape) != 3 or node.attributes.get_int("axis", 0) != 0:
            continue
        squeezes = [squeeze for value in node.outputs if (squeeze := _only_squeeze(value)) is not None]
        if not len(squeezes) == len(node.outputs) == stacked.shape[0]:
            continue
        matrices = stacked.numpy()
        for number, squeeze in enumerate(squeezes):
            value = add_constant(model, f"{node.inputs[0].name}.{number}", np.ascontiguousarray(matrices[number]))
            squeeze.outputs[0].replace_all_uses_with(value)
        made += len(squeezes)
    if made:
        tidy(model)
    return made


def _only_squeeze(value: onnx_ir.Value) -> onnx_ir.Node | None:
    """The Squeeze of the first axis that alone reads a piece of a split; None where it is read otherwise."""
    uses = list(value.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Squeeze" or uses[0].node.outputs[0].is_graph_output():
        return None
    axes = constant(uses[0].node.inputs[1]) if len(uses[0].node.inputs) > 1 else None
    return uses[0].node if axes is not None and axes.reshape(-1).tolist() == [0] else None
