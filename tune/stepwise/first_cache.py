"""The first cache: keys and values of virtual tokens that stand before every sequence of a language model.

By causality all that virtual tokens do to a text is in their keys and values, whichever method trained them. So prompt
tuning (Lester et al. 2021, arXiv 2104.08691), P-tuning (Liu et al. 2021, arXiv 2103.10385) and prefix tuning (Li and
Liang 2021, arXiv 2101.00190) end alike: weights as they were, and a cache that a decoder starts from. The modules that
are trained are peft's; a hook puts their cache before whatever the model is run on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DynamicCache

from edgetune.serve.errors import ModelError, RecipeError
from edgetune.tune.stepwise.context import position_limit

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model
    from edgetune.tune.stepwise.recipe import GenerationTuneRecipe

FIRST_CACHE_NAME = "first_cache.safetensors"
_TRAINED = "first_cache"  # the submodule's name while it is trained
_FIXED = "_first_cache"

Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class FirstCache:
    """Keys and values of each layer, (1, kv_heads, tokens, head_dim) float32 each."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def tokens(self) -> int:
        """How many virtual tokens there are."""
        return int(self.layers[0][0].shape[2])

    def save(self, folder: Path) -> None:
        """Write it beside a model's weights."""
        parts = {f"{part}.{layer}": tensor for layer, pair in enumerate(self.layers) for part, tensor in _named(pair)}
        save_file({name: tensor.contiguous() for name, tensor in parts.items()}, folder / FIRST_CACHE_NAME)

    @classmethod
    def open(cls, folder: Path) -> FirstCache | None:
        """That of a model's folder; None where it has none.

        Raises:
            ModelError: it cannot be read.
        """
        path = folder / FIRST_CACHE_NAME
        if not path.is_file():
            return None
        try:
            parts = load_file(path)
            return cls(
                tuple((parts[f"keys.{layer}"], parts[f"values.{layer}"]) for layer in range(len(parts) // 2)),
            )
        except (OSError, KeyError, SafetensorError) as error:
            raise ModelError(
                f"{path} cannot be read: {error}",
                expected="the keys and values that tuning wrote",
                action="tune the model again",
            ) from error


def put_before(model: Model, first: FirstCache | None) -> Model:
    """Let a causal language model begin behind a cache; without one it stays as it is."""
    if first is not None:
        _hook(model, first.layers)
        setattr(model, _FIXED, first)
    return model


def first_tokens(model: Model) -> int:
    """Virtual tokens that stand before whatever a model is run on."""
    trained = getattr(model, _TRAINED, None)
    first: FirstCache | None = getattr(model, _FIXED, None)
    if isinstance(trained, TrainedCache):
        return trained.tokens
    return 0 if first is None else first.tokens


class TrainedCache(nn.Module):
    """A first cache while it is trained: peft's module of virtual tokens, and what makes a cache of what it gives.

    Attributes:
        source: maps places (1, tokens) int64 to embeddings (1, tokens, width), or of a prefix to keys and values.
        config: of peft, by which the trained module can be opened there.
    """

    def __init__(self, source: nn.Module, config: Any) -> None:
        super().__init__()
        self.source, self.config = source, config
        self.tokens = int(config.num_virtual_tokens)

    def rows(self) -> torch.Tensor:
        """What the module gives, (tokens, width) float32: peft stores these as `prompt_embeddings`."""
        places = torch.arange(self.tokens, device=next(self.source.parameters()).device)
        rows: torch.Tensor = self.source(places[None])[0]
        return rows

    def layers(self, model: Model) -> Layers:
        """Keys and values of each layer, with their gradient."""
        rows = self.rows()
        if self.config.peft_type != "PREFIX_TUNING":
            return _computed(model, rows)
        heads = self.config.num_attention_heads
        shape = (1, self.tokens, 2 * self.config.num_layers, heads, self.config.token_dim // heads)
        parts = rows.view(shape).permute(2, 0, 3, 1, 4)  # as peft's get_prompt: (parts, 1, heads, tokens, width)
        return [(parts[2 * layer], parts[2 * layer + 1]) for layer in range(self.config.num_layers)]


def train_first_cache(model: Model, recipe: GenerationTuneRecipe) -> Model:
    """Train virtual tokens before every sequence, by `recipe.method`; all weights stay.

    They begin as tokens drawn from the vocabulary, the first as the one that begins texts, if there is one: many models
    attend to that wherever nothing else is wanted. A prefix begins as the cache of these (Li and Liang, 7.4).

    Raises:
        RecipeError: there are more virtual tokens than the model can keep before a text.
        ModelError: the layers keep caches of unlike sizes.
    """
    config, count = model.config.get_text_config(), recipe.prompt.tokens
    limit = position_limit(config)
    window = getattr(config, "sliding_window", None)
    most = min(each for each in (limit and limit // 2, window and window - 1, 1 << 16) if each)
    if count > most:
        raise RecipeError(
            f"tune.prompt.tokens is {count}, and the model keeps {limit or 0:,} tokens of prompt and text"
            + (f", in some layers {window:,}." if window else "."),
            expected=f"at most {most}",
        )
    model.requires_grad_(False)
    embed = model.get_input_embeddings()
    drawn = torch.randperm(config.vocab_size)[:count]
    if config.bos_token_id is not None:
        drawn[0] = config.bos_token_id
    drawn = drawn[torch.arange(count) % len(drawn)]
    with torch.no_grad():
        rows = embed(drawn.to(embed.weight.device)).detach()
        cache = _computed(model, rows)
    first = {"prompt": _prompt, "p-tuning": _p_tuning, "prefix": _prefix}[recipe.method](rows, cache, recipe)
    model.add_module(_TRAINED, first.to(model.device).requires_grad_(True))
    _hook(model, first)
    return model


def taken_off(model: Model) -> tuple[FirstCache, TrainedCache] | None:
    """Take a trained first cache off its model, whose weights are then as they were; None where there is none."""
    trained = getattr(model, _TRAINED, None)
    if not isinstance(trained, TrainedCache):
        return None
    with torch.no_grad():
        layers = tuple((keys.detach().cpu(), values.detach().cpu()) for keys, values in trained.layers(model))
    model.__dict__.pop("_first_hook").remove()
    delattr(model, _TRAINED)
    return FirstCache(layers), trained


def save_adapter(trained: TrainedCache, base_id: str, folder: Path) -> None:
    """Write what was trained as peft stores it, for `PeftModel.from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    trained.config.base_model_name_or_path, trained.config.inference_mode = base_id, True
    trained.config.save_pretrained(folder)
    with torch.no_grad():
        save_file({"prompt_embeddings": trained.rows().cpu().contiguous()}, folder / "adapter_model.safetensors")


def _prompt(rows: torch.Tensor, cache: Layers, recipe: GenerationTuneRecipe) -> TrainedCache:
    from peft import PromptEmbedding, PromptTuningConfig

    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=len(rows), token_dim=rows.shape[1], num_transformer_submodules=1
    )
    return _begun(TrainedCache(PromptEmbedding(config, None), config), rows)


def _p_tuning(rows: torch.Tensor, cache: Layers, recipe: GenerationTuneRecipe) -> TrainedCache:
    from peft import PromptEncoder, PromptEncoderConfig

    config = PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=len(rows),
        token_dim=rows.shape[1],
        num_transformer_submodules=1,
        encoder_reparameterization_type=recipe.prompt.network.upper(),
        encoder_hidden_size=rows.shape[1],
        encoder_num_layers=2,
        encoder_dropout=0.0,
    )
    return _begun(TrainedCache(PromptEncoder(config), config), rows)


def _prefix(rows: torch.Tensor, cache: Layers, recipe: GenerationTuneRecipe) -> TrainedCache:
    from peft import PrefixEncoder, PrefixTuningConfig

    _, heads, tokens, width = cache[0][0].shape
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=tokens,
        token_dim=heads * width,
        num_attention_heads=heads,
        num_layers=len(cache),
        num_transformer_submodules=1,
    )
    parts = torch.stack([part for pair in cache for part in pair])  # (parts, 1, heads, tokens, width)
    return _begun(TrainedCache(PrefixEncoder(config), config), parts.permute(1, 3, 0, 2, 4).reshape(tokens, -1))


def _begun(trained: TrainedCache, rows: torch.Tensor) -> TrainedCache:
    """Let the module's own table begin with these rows; a network between it and the model begins at random."""
    table: Any = trained.source.get_submodule("embedding")
    with torch.no_grad():
        table.weight.copy_(rows)
    return trained


def _computed(model: Model, rows: torch.Tensor) -> Layers:
    """The cache of embeddings (tokens, width): what a decoder keeps of them."""
    decoder: Any = model.base_model
    cache = decoder(inputs_embeds=rows[None], use_cache=True).past_key_values
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    shapes = {tuple(part.shape) for pair in layers for part in pair}
    if len(shapes) != 1 or next(iter(shapes))[2] != len(rows):
        raise ModelError(
            f"The layers of this {model.config.model_type} model keep caches of unlike sizes: {sorted(shapes)}.",
            expected="one size for all layers",
            action="use --method lora",
        )
    return layers


def _hook(model: Any, first: TrainedCache | Layers) -> None:
    """Before each run: an empty cache becomes the first one, and mask and positions count its tokens."""

    def begin(module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        layers = first.layers(module) if isinstance(first, TrainedCache) else first
        tokens = layers[0][0].shape[2]
        told: Any = args[0] if args else given.get("input_ids", given.get("inputs_embeds"))
        past, mask, positions = (given.get(name) for name in ("past_key_values", "attention_mask", "position_ids"))
        if past is None or past.get_seq_length() == 0:
            past = DynamicCache(config=module.config.get_text_config()) if past is None else past
            for number, pair in enumerate(layers):
                past.update(*(part.expand(len(told), -1, -1, -1).to(told.device) for part in pair), number)
        given = {**given, "past_key_values": past}
        if mask is not None:
            given["attention_mask"] = torch.cat((mask.new_ones(len(mask), tokens), mask), dim=1)
        if positions is not None:
            given["position_ids"] = positions + tokens
        return args, given

    model.__dict__["_first_hook"] = model.register_forward_pre_hook(begin, with_kwargs=True)


def _named(pair: tuple[torch.Tensor, torch.Tensor]) -> zip[tuple[str, torch.Tensor]]:
    return zip(("keys", "values"), pair, strict=True)
