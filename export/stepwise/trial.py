"""Whether a base can become a decoder graph, tried on a small random model of its kind before anything is tuned.

The exporter fails on some architectures, and after hours of training that is told too late. A trial costs about ten
seconds, so families whose graphs the tests prove do without.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.export.stepwise.graph import export_decoder
from edgetune.serve.errors import BundleDamaged, ExportError, ModelError
from edgetune.tune.models.base import Base, first_words
from edgetune.tune.stepwise.context import rotation_types
from edgetune.tune.stepwise.model import language_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# By transformers' model types: tests/export proves their graphs, and those of all these rotations.
PROVEN = frozenset(
    {"llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt2", "smollm3", "mistral"}
    | {"gpt_neox"}
)
PROVEN_ROTATIONS = frozenset({"default", "linear", "dynamic", "llama3", "yarn", "longrope"})
_VOCABULARY = 64
_INNER = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_dim", "n_inner")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def check_exportable(base: Base, *, trust_remote_code: bool = False, batch_one: bool = False) -> None:
    """Export a small random model of the base's configuration, unless its family is proven.

    Args:
        base: a pretrained language model.
        trust_remote_code: it may bring its own code, of which nothing is tried.
        batch_one: the profile of the graph.

    Raises:
        ModelError: no graph can be made of it.
    """
    config = language_config(base, trust_remote_code=trust_remote_code)
    if config.model_type in PROVEN and rotation_types(config.get_text_config()) <= PROVEN_ROTATIONS:
        return
    if trust_remote_code and getattr(config, "auto_map", None):
        return
    with tempfile.TemporaryDirectory(prefix="edgetune-trial-") as scratch:
        try:
            _export_small(config, Path(scratch), batch_one=batch_one)
        except (ExportError, BundleDamaged, ModelError) as error:
            raise ModelError(
                f"{base.id} cannot become a decoder graph: a small random {config.model_type} model of its "
                f"configuration could not be exported. {error.found}",
                expected="an architecture that transformers' exporter and ONNX Runtime take, such as Llama, Qwen, "
                "Gemma, Phi, GPT-2, SmolLM or Mistral",
                action="choose another --base; nothing was tuned",
            ) from error


def _export_small(config: PreTrainedConfig, folder: Path, *, batch_one: bool) -> None:
    """As the export stage: with fusions, and without them where they fail."""
    import torch
    from transformers import AutoModelForCausalLM

    small = small_config(config)
    try:
        with torch.random.fork_rng():
            model = AutoModelForCausalLM.from_config(small)
        model.save_pretrained(folder)
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError, ImportError) as error:
        raise ModelError(f"It cannot be made: {first_words(error)}") from error
    del model
    try:
        export_decoder(folder, folder / "graph", batch_one=batch_one)
    except (ExportError, BundleDamaged):
        if batch_one:
            raise
        export_decoder(folder, folder / "plain", fused=False)


def small_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration with as few layers as show each kind, few tokens, narrow inner layers and few experts.

    Widths of attention stay: whether it can be fused hangs on them.
    """
    small = copy.deepcopy(config)
    text = small.get_text_config()
    kinds = getattr(text, "layer_types", None)
    layers = 1 + max(kinds.index(kind) for kind in set(kinds)) if kinds else 2
    _shrink(text, "num_hidden_layers", max(2, layers))
    if kinds:
        with contextlib.suppress(AttributeError):  # of some it follows from the number of layers
            text.layer_types = list(kinds[: text.num_hidden_layers])
    for name in _INNER:
        _shrink(text, name, 64)
    for name in _EXPERTS:
        _shrink(text, name, 4)
    _shrink(text, "num_experts_per_tok", 2)
    text.vocab_size = _VOCABULARY
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, name, None if getattr(text, name, None) is None else 0)
    return small


def _shrink(config: Any, name: str, most: int) -> None:
    value = getattr(config, name, None)
    if isinstance(value, int):
        setattr(config, name, min(value, most))
