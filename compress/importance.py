"""What each feed-forward column is worth: the loss's first-order change when a gate on it closes.

Michel et al. (2019, arXiv 1905.10650) score attention heads so; the same sum is taken here over the columns between
the two linear layers: the mean over the texts of |sum over tokens of activation times gradient|.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgetune.compress.structure import feed_forward
from edgetune.tune.data.rows import Input
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import length_batches
from edgetune.tune.tasks.objective import Objective
from edgetune.tune.training.progress import Progress, Silent


def column_importance(
    model: Any,
    encoder: Encoder,
    texts: Sequence[Input],
    learnt: NDArray[Any],
    objective: Objective,
    *,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Importance (layers, columns), at least 0, in one pass over labelled texts; the model is left as it was.

    `learnt` are the texts' targets as the objective's loss takes them.

    A shared layer has one row, which stands for all of its runs.
    """
    downs = [down for _, down in feed_forward(model)]
    totals = np.zeros((len(downs), downs[0].in_features))
    seen: list[tuple[int, torch.Tensor]] = []

    def record(layer: int) -> Any:
        def keep(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            inputs[0].retain_grad()
            seen.append((layer, inputs[0]))

        return keep

    rows = encoder.rows(texts)
    hooks = [down.register_forward_pre_hook(record(layer)) for layer, down in enumerate(downs)]
    model.eval()
    done = 0
    try:
        for batch in length_batches([len(row["input_ids"]) for row in rows], 32):
            seen.clear()
            padded = encoder.pad([rows[row] for row in batch]).to(model.device)
            targets = torch.from_numpy(learnt[batch]).to(model.device)
            with torch.enable_grad():
                loss = objective.loss(model(**padded).logits.float(), targets, None)
            torch.autograd.backward(loss)
            totals += _changes(seen, len(downs))
            done += len(batch)
            (progress or Silent()).advance(done, len(rows), "importance of columns")
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)
    return totals / len(rows)


def _changes(seen: Sequence[tuple[int, torch.Tensor]], layers: int) -> NDArray[np.float64]:
    """(layers, columns): the texts' changes by size; the runs of a shared layer add up first, as they share gates."""
    changes: dict[int, torch.Tensor] = {}
    for layer, activation in seen:
        assert activation.grad is not None
        change = (activation.detach() * activation.grad).sum(dim=-2)  # (batch, columns)
        changes[layer] = changes[layer] + change if layer in changes else change
    return np.stack([changes[layer].abs().sum(dim=0).double().cpu().numpy() for layer in range(layers)])


def best_columns(importance: NDArray[np.float64], kept: int) -> list[list[int]]:
    """The `kept` columns of each layer that are worth most, in rising order; ties go to the first."""
    order = np.argsort(-importance, axis=1, kind="stable")[:, :kept]
    return [sorted(row) for row in order.tolist()]
