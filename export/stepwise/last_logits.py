"""The cut to the last position's logits, made movable: how many positions behind each other give logits.

A graph that serves gives the logits behind the last token, since those of a whole prompt are vocabulary times tokens.
Tokens that were guessed ahead (serve/stepwise/lookup.py) need those of a few. The start of the cut becomes an
initializer that may be fed: hosts that know nothing of it get the last position as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetune.compress.fusion.surgery import add_constant, constant
from edgetune.compress.gptq.head import LOGITS, head_product
from edgetune.serve.stepwise.bound import LOGITS_FROM

if TYPE_CHECKING:
    import onnx_ir


def free_last_logits(model: onnx_ir.Model) -> bool:
    """Let the start of the cut before the head of an `onnx_ir.Model` be fed as `LOGITS_FROM`, (1,) int64, else -1.

    Returns:
        whether the graph has such a cut; one that takes the last position otherwise stays as it is.
    """
    import onnx_ir

    node = head_product(model).inputs[0].producer()
    if node is None or node.op_type != "Slice":
        return False
    start = constant(node.inputs[1])
    if start is None or start.reshape(-1).tolist() != [-1]:
        return False
    value = add_constant(model, LOGITS_FROM, np.asarray([-1], np.int64))
    model.graph.inputs.append(value)
    node.replace_input_with(1, value)
    (logits,) = (output for output in model.graph.outputs if output.name == LOGITS)
    rows, _, vocabulary = logits.shape
    logits.shape = onnx_ir.Shape([rows, "last_tokens", vocabulary])
    return True
