"""The diagonal of the Fisher information: how much each weight matters to what a model answers now.

Kirkpatrick et al. 2017 (arXiv 1612.00796). The answers are drawn from the model itself, one row at a time, which is the
Fisher information; the gradients of given labels would be another, empirical one, which vanishes on rows that are
learnt well (Kunstner et al. 2019, arXiv 1905.12558).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from edgetune.tune.data.rows import Input
    from edgetune.tune.models.encoder import Encoder
    from edgetune.tune.models.types import Model


def fisher_diagonal(
    model: Model, encoder: Encoder, inputs: Sequence[Input], *, seed: int, progress: Progress
) -> dict[str, torch.Tensor]:
    """Mean squared gradients of the log-probability of one drawn label a row, by the name of each trained weight.

    The model is left in evaluation mode, without gradients.
    """
    device = next(model.parameters()).device
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    squares = {name: torch.zeros_like(weight) for name, weight in trained.items()}
    draws = torch.Generator().manual_seed(seed)
    model.eval()
    for number, row in enumerate(encoder.rows(inputs), start=1):
        logits = model(**encoder.pad([row]).to(device)).logits.float()
        probabilities = logits.softmax(-1)
        label = torch.multinomial(probabilities[0].detach().cpu(), 1, generator=draws).to(device)
        loss = torch.nn.functional.cross_entropy(logits, label)
        gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        with torch.no_grad():
            for square, gradient in zip(squares.values(), gradients, strict=True):
                if gradient is not None:
                    square.addcmul_(gradient, gradient, value=1 / len(inputs))
        progress.advance(number, len(inputs), "what earlier answers rest on")
    return squares
