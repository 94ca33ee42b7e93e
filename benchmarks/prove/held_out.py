"""Answers to the validation part as if its rows had not been learnt.

The head of a tuned model is solved on training and validation part together, once everything else about it is settled.
Its own answers to validation rows are therefore better than those to rows that are new, and who did not learn them, a
student or the small model of a cascade, would seem to lose what it does not. Tuning keeps for each validation row the
logits of a head that has not learnt it. Logits are linear in the head, so their difference to the final head's is, up
to rounding, the same for every graph that has the tuned model's trunk and head. Must not import torch at the top.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.prove.ledger import Logits, Slice, encoded
from edgetune.serve.predictor import Predictor
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.models.model import TunedModel


def head_shift(tuned: TunedModel, rows: int, seed: int, logits: Logits) -> Logits:
    """What is added to the logits of the frozen validation rows so that none of them has been learnt.

    Args:
        tuned: the tuned model, whose folder has its held-out logits.
        rows: `gate.rows`, with which the rows were drawn.
        seed: the same.
        logits: the tuned model's own on these rows, (rows, outputs) float32.

    Returns:
        (rows, outputs) float32; nothing, of no dimension, for a model that gives a number or a vector, or that has no
        held-out logits.
    """
    held_out = tuned.held_out_logits()
    if held_out is None or tuned.head.kind in ("number", "embedding"):
        return np.zeros((), dtype=np.float32)
    return held_out[frozen_indices(len(held_out), rows, seed)] - logits


def held_out_logits(predictor: Predictor, rows: Slice, shift: Logits | float) -> Logits:
    """Logits (rows, outputs) of a bundle that has the tuned model's head, one row a run, as if no row had been learnt.

    What the small model of a cascade answers stays as it is: it has learnt from the training part alone.
    """
    outputs = predictor.outputs(encoded(predictor, rows), batch_size=1)
    if outputs.answered_by is None:
        return outputs.logits + shift
    by_graph: NDArray[np.bool_] = np.asarray([scheme == predictor.variant for scheme in outputs.answered_by])
    return np.where(by_graph[:, None], outputs.logits + shift, outputs.logits)
