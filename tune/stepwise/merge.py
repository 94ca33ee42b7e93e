"""Merging adapters into a language model's weights, proven: the same logits before, after, and after opening again.

One proof for every method, on real rows; the names and shapes of the weights must be those of the base. Over quantized
weights the merge starts from the de-quantized ones, in fp32: merging into 4 bits would round the adapters away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from edgetune.serve.errors import MergeError
from edgetune.tune.models.base import Base
from edgetune.tune.models.merge import TOLERANCE
from edgetune.tune.stepwise.batches import pad_rows
from edgetune.tune.stepwise.first_cache import put_before, save_adapter, taken_off
from edgetune.tune.stepwise.model import mend_generation_config, open_language_model, open_pretrained
from edgetune.tune.stepwise.qlora import dequantized, exact_arithmetic, is_quantized, quantized_layers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model

# Floats of the logits that are kept for the comparison: 128 MB, whatever the vocabulary.
_MOST_LOGITS = 1 << 25
_MOST_ROWS = 16

Logits = list[NDArray[np.float32]]


def merge_language_model(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, list[int]]],
    *,
    base: Base,
    folder: Path,
    adapter: Path | None = None,
) -> float:
    """Merge adapters (if there are any), save the model to `folder`, open it again, and prove each step.

    Args:
        model: the trained model, with adapters or without, over quantized weights or not; it is used up.
        rows: encoded rows; the logits of the first of them are compared, at most 16 rows and 128 MB.
        base: where the model was started, for the weights that a quantized model holds no more.
        adapter: where adapters are saved before they are merged, and opened again to prove them; None saves none.

    Returns:
        The largest absolute logit difference between the trained model and the folder. A quantized model's logits
        are those of its de-quantized weights, so that the rounding of its kernels is not held against the merge.

    Raises:
        MergeError: logits, names or shapes of the weights differ; nothing but a wrong model is left in `folder`.
    """
    model.eval()
    if not is_quantized(model):
        model.to("cpu")
    with exact_arithmetic(model):
        before = _logits(model, rows)
    if adapter is not None and hasattr(model, "merge_and_unload"):
        model.save_pretrained(adapter)
        if not is_quantized(model):
            _compare("opening the saved adapters", before, _logits(_adapted(model, base, adapter), rows))
    baked = taken_off(model)
    if baked is not None and adapter is not None:
        save_adapter(baked[1], base.id, adapter)
        _compare("opening the saved virtual tokens by peft", before, _logits(_adapted(model, base, adapter), rows))
    first = None if baked is None else baked[0]
    merged = put_before(_merged(model, base), first)
    _compare("merging", before, _logits(merged, rows))
    _compare_weights(merged)
    mend_generation_config(merged)
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if first is not None:
        first.save(folder)
    reopened = open_language_model(folder)
    _compare_weights(reopened)
    return _compare("saving and opening", before, _logits(reopened, rows))


def _adapted(model: Model, base: Base, adapter: Path) -> Model:
    """The base as it was, with adapters from their folder."""
    from peft import PeftModel

    plain = open_pretrained(base, trust_remote_code=hasattr(model.config, "auto_map"))
    return PeftModel.from_pretrained(plain, adapter).eval()


def _merged(model: Model, base: Base) -> Model:
    if is_quantized(model):
        return _merged_in_fp32(model, base)
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


@torch.no_grad()
def _merged_in_fp32(model: Model, base: Base) -> Model:
    """A plain fp32 model with the de-quantized weights, adapters added; it starts from the base for all the rest."""
    from peft.tuners.lora import LoraLayer

    inside = model.get_base_model()
    merged = open_pretrained(base, trust_remote_code=hasattr(inside.config, "auto_map"))
    for name, layer in quantized_layers(inside):
        _write(merged, name.removesuffix(".base_layer"), dequantized(layer))
    for name, layer in inside.named_modules():
        if isinstance(layer, LoraLayer):
            for adapter in layer.active_adapters:
                # (outputs, inputs), but (inputs, outputs) where the layer that is adapted is a Conv1D
                _write(merged, name, layer.get_delta_weight(adapter).float(), add=True)
    return merged.eval()


def _write(model: Model, name: str, values: torch.Tensor, *, add: bool = False) -> None:
    module = model.get_submodule(name)
    values = values.to(module.weight.device)
    if isinstance(module, Conv1D):
        values = values.T
    module.weight.copy_(module.weight + values if add else values)


def _logits(model: Model, rows: Sequence[dict[str, list[int]]]) -> Logits:
    """Logits (tokens, vocabulary) float32 of each of the first rows, one row at a time."""
    collected: Logits = []
    held = 0
    with torch.inference_mode():
        for row in rows[:_MOST_ROWS]:
            batch = pad_rows([row])
            batch.pop("labels")
            logits = model(**{name: values.to(model.device) for name, values in batch.items()}, use_cache=False).logits
            # peft's models of virtual tokens give the logits of these too, in front
            collected.append(logits[0, -len(row["input_ids"]) :].float().cpu().numpy())
            held += collected[-1].size
            if held > _MOST_LOGITS:
                break
    return collected


def _compare(step: str, before: Logits, after: Logits) -> float:
    shapes = [(merged.shape, original.shape) for merged, original in zip(after, before, strict=True)]
    if any(merged != original for merged, original in shapes):
        raise MergeError(f"After {step} the logits have shape {shapes[0][0]}.", expected=f"{shapes[0][1]}")
    difference = float(
        np.max([np.abs(merged - original).max() for merged, original in zip(after, before, strict=True)])
    )
    allowed = TOLERANCE * max(1.0, float(np.max([np.abs(original).max() for original in before])))
    if not difference <= allowed:
        raise MergeError(
            f"After {step} the model answers differently: logits are off by up to {difference:.4g}.",
            expected=f"at most {allowed:.4g}, measured on {len(before)} rows",
            action="report this with the base model's name; nothing was written to the output",
        )
    return difference


def _compare_weights(model: Model) -> None:
    """Names and shapes of the weights against those of the architecture, made without memory."""
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(model.config, trust_remote_code=hasattr(model.config, "auto_map"))
    expected = {name: tuple(weight.shape) for name, weight in plain.state_dict().items()}
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    faults = [name for name in sorted(expected | shapes) if expected.get(name) != shapes.get(name)]
    if faults:
        raise MergeError(
            f"The merged model's weights are not the base's: {', '.join(faults[:5])}"
            + (f" and {len(faults) - 5} more" if len(faults) > 5 else ""),
            expected="the names and shapes of the architecture that config.json names",
        )
