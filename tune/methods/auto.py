"""Probe first, then all layers from the probed head, one short round after another while the validation part gains.

All layers and not adapters where memory allows: a step costs as much, and a first epoch without dropout gains more
(docs/log.md). Adapters keep no optimizer states of the trunk, so they train what is too large otherwise. What is
handed on is decided in training/outcome.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgetune.serve.cores import usable_memory_bytes
from edgetune.tune.models.classifier import token_embeddings

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model

# Gradients and both moments of AdamW, float32, and the largest share of memory that they may take.
BYTES_A_WEIGHT, MOST_SHARE = 12, 0.25


def settle(model: Model, device: str) -> str:
    """The method that trains `model`: `layers`, or `lora` where memory is short. Depends on sizes alone, so that a
    continued build settles on the same."""
    embeddings = token_embeddings(model)
    weights = sum(weight.numel() for weight in model.parameters())
    trained = weights - (0 if embeddings is None else embeddings.weight.numel())
    memory = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else usable_memory_bytes()
    return "lora" if memory is not None and BYTES_A_WEIGHT * trained > MOST_SHARE * memory else "layers"
