"""The GenerationSpec of a decoder graph: cache sizes from the graph itself, limits and special tokens from its model.

The graph's own tensors say what its cache is; a configuration has other words for it in every family.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.export.stepwise.rewrite import fixed_size
from edgetune.serve.bundle import TOKENIZER_NAME
from edgetune.serve.errors import ExportError
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.tune.stepwise.context import position_limit

if TYPE_CHECKING:
    import onnx_ir
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PAST = re.compile(r"input\.past_key_values\.layers\.(\d+)\.(keys|values)")
_OTHERS = {"input_ids", "attention_mask", "position_ids"}


def decoder_spec(
    program: onnx_ir.Model, model: PreTrainedModel, model_folder: Path, *, batch_one: bool
) -> GenerationSpec:
    """Read the spec of an exported `onnx_ir.Model`.

    Raises:
        ExportError: the graph keeps something else than keys and values, one size for all layers, between steps.
    """
    kv_heads, head_dim, layers = _cache_sizes(program, model.config.model_type)
    tokenizer = _tokenizer(model_folder)
    config, generation = model.config.get_text_config(), model.generation_config
    limits = [
        limit for limit in (position_limit(config), getattr(tokenizer, "model_max_length", None)) if limit is not None
    ]
    if not limits:
        raise ExportError(
            f"Nothing says how many tokens this {model.config.model_type} model takes.",
            expected="max_position_embeddings in config.json, or model_max_length in tokenizer_config.json",
        )
    eos = _first(generation.eos_token_id, config.eos_token_id, getattr(tokenizer, "eos_token_id", None))
    spec = GenerationSpec(
        layers=layers,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=_vocabulary(program),
        context_tokens=int(min(limits)),
        eos_ids=_ids(eos),
        bos_id=_first(getattr(tokenizer, "bos_token_id", None), generation.bos_token_id, config.bos_token_id),
        pad_id=_first(getattr(tokenizer, "pad_token_id", None), generation.pad_token_id, config.pad_token_id),
        batch_one=batch_one,
    )
    _check_outputs(program, spec)
    return spec


def _cache_sizes(program: onnx_ir.Model, model_type: str) -> tuple[int, int, int]:
    """Key-value heads, width of a head, layers."""
    sizes: set[tuple[int | None, int | None]] = set()
    places, strange = [], []
    for value in program.graph.inputs:
        if match := _PAST.fullmatch(value.name):
            places.append((int(match[1]), match[2]))
            sizes.add((fixed_size(value.shape[1]), fixed_size(value.shape[3])))
        elif value.name not in _OTHERS:
            strange.append(value.name)
    layers = len(places) // 2
    if strange or sorted(places) != [(layer, part) for layer in range(layers) for part in ("keys", "values")]:
        raise ExportError(
            f"A {model_type} model keeps more than keys and values of every layer between its steps: "
            f"{', '.join(strange[:4]) or sorted(places)}.",
            expected="a decoder whose every layer is attention over a cache of its own",
        )
    (kv_heads, head_dim), *others = sizes or {(None, None)}
    if others or kv_heads is None or head_dim is None:
        raise ExportError(
            f"The layers of this {model_type} model keep caches of unlike sizes: {sorted(sizes, key=str)}.",
            expected="one number of key-value heads and one head width for all layers",
        )
    return kv_heads, head_dim, layers


def _vocabulary(program: onnx_ir.Model) -> int:
    logits = next(value for value in program.graph.outputs if value.name == "logits")
    width = fixed_size(logits.shape[-1])
    if width is None:
        raise ExportError("The width of the logits is open.", expected="the size of the vocabulary")
    return width


def _check_outputs(program: onnx_ir.Model, spec: GenerationSpec) -> None:
    names = {value.name for value in program.graph.outputs}
    expected = {"logits", *spec.present_names()}
    if names != expected:
        raise ExportError(
            f"The graph's outputs differ from its cache: {sorted(names ^ expected)[:4]}.",
            expected="logits, and the present keys and values of every layer",
        )


def _tokenizer(model_folder: Path) -> PreTrainedTokenizerBase | None:
    """The folder's tokenizer, or None where it has none."""
    if not (model_folder / TOKENIZER_NAME).is_file():
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _ids(value: int | Iterable[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else [int(one) for one in value]
