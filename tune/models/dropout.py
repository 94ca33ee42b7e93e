"""Dropout that does not hold up training on a CPU, or none at all.

torch draws dropout masks on one thread, at 20 to 30 ns an element: a third of a LoRA step on MiniLM. One random
byte an element from NumPy's SFC64 does the same in a fortieth of the time. Each call is seeded from torch's own
generator, so seeds and resumed runs behave as before.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

_LEVELS = 256


class ByteDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose rate is rounded to a 256th; what is kept is scaled to the same mean."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._threshold = round(rate * _LEVELS)
        self.p = self._threshold / _LEVELS  # attention modules read the rate of the dropout that they hold

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs of any shape and float dtype; the same shape and dtype out, unchanged outside of training."""
        if not self.training or self._threshold == 0:
            return inputs
        seed = int(torch.randint(1 << 62, ()))
        drawn = np.random.Generator(np.random.SFC64(seed)).bytes(inputs.numel())
        kept = torch.frombuffer(bytearray(drawn), dtype=torch.uint8).view(inputs.shape) >= self._threshold
        return inputs * kept.to(inputs.dtype).mul_(_LEVELS / (_LEVELS - self._threshold))


def quicken_dropout(model: nn.Module) -> None:
    """Put ByteDropout in the place of every nn.Dropout of a model that trains on the CPU."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout and child.p < 1:
                setattr(module, name, ByteDropout(child.p))


def remove_dropout(model: nn.Module) -> None:
    """Set every rate of dropout in a model to nothing: modules of it, and rates that attention keeps as numbers."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and (name == "p" if isinstance(module, nn.Dropout) else "drop" in name):
                setattr(module, name, 0.0)
