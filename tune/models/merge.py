"""Merging adapters into the weights, proven: the same logits of the adapted model, of the merged one, and of each after
it was saved and opened again.

A head that is lost or random after merging is the best-known bug of this field, so the head's own tensors are
compared too. The comparison is a gate: a merge that differs is an error, never a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from edgetune.serve.errors import MergeError
from edgetune.tune.data.rows import Input
from edgetune.tune.methods.virtual_tokens import bake
from edgetune.tune.models.classifier import head_names
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import open_model

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model

# Merging adds two fp32 products in another order; on MiniLM that moves logits by about 1e-5.
TOLERANCE = 1e-3


def merge_and_save(
    model: Model,
    encoder: Encoder,
    inputs: Sequence[Input],
    folder: Path,
    *,
    base: Path | None = None,
    adapter: Path | None = None,
) -> float:
    """Merge adapters or bake virtual tokens, if there are any, save the model to `folder`, and prove each step.

    Args:
        model: the tuned model, with adapters or without.
        inputs: the fixed slice on which logits are compared.
        base: folder of the model that the adapters were put on, with which those that were saved are proven.
        adapter: where adapters are saved before they are merged; None saves none.

    Returns:
        The largest absolute logit difference between the tuned model and the folder.

    Raises:
        MergeError: logits or head differ by more than the tolerance.
    """
    model.eval().to("cpu")
    before = model_logits(model, encoder, inputs)
    adapted = hasattr(model, "merge_and_unload")
    head = _trained_head(model) if adapted else _head(model)
    if adapted and base is not None and adapter is not None:
        model.save_pretrained(adapter)
        _compare("opening the saved adapters", before, model_logits(open_model(base, adapter=adapter), encoder, inputs))
    merged = model.merge_and_unload() if adapted else bake(model)
    _compare("merging", before, model_logits(merged, encoder, inputs))
    merged.save_pretrained(folder)
    encoder.save(folder)
    reopened = open_model(folder)
    _compare_heads(head, _head(reopened))
    saved_encoder = Encoder.of_folder(folder, encoder.max_tokens, encoder.task, encoder.codec)
    return _compare("saving and opening", before, model_logits(reopened, saved_encoder, inputs))


def _trained_head(model: Model) -> dict[str, torch.Tensor]:
    """The head's tensors as peft trained them, which replace the original ones on merging."""
    inside = model.get_base_model()
    trained: dict[str, torch.Tensor] = {}
    for name in head_names(inside):
        kept = getattr(inside.get_submodule(name), "modules_to_save", None)
        if kept is None:
            raise MergeError(f"The adapted model holds no trained {name}: it would be lost on merging.")
        trained |= _tensors(kept["default"], name)
    return trained


def _head(model: Model) -> dict[str, torch.Tensor]:
    parts = (_tensors(model.get_submodule(name), name) for name in head_names(model))
    return {name: tensor for part in parts for name, tensor in part.items()}


def _tensors(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    tensors = module.state_dict(prefix=f"{prefix}.").items()
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors}


def _compare(step: str, before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    if before.shape != after.shape:
        raise MergeError(f"After {step} the logits have shape {after.shape}.", expected=f"{before.shape}")
    difference = float(np.abs(before - after).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(before).max()))
    if not difference <= allowed:
        raise MergeError(
            f"After {step} the model answers differently: logits are off by up to {difference:.4g}.",
            expected=f"at most {allowed:.4g}, measured on {len(before)} texts",
            action="report this with the base model's name; nothing was written to the output",
        )
    return difference


def _compare_heads(trained: dict[str, torch.Tensor], saved: dict[str, torch.Tensor]) -> None:
    faults = [
        name
        for name, tensor in trained.items()
        if name not in saved or not torch.allclose(tensor, saved[name], rtol=1e-5, atol=1e-6)
    ]
    if faults:
        raise MergeError(f"The trained head was lost: {', '.join(faults)} differ in the saved model.")
