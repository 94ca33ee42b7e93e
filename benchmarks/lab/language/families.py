"""Random models in the shapes of known families: speed and size do not depend on what the weights are.

Each shape keeps what makes its family itself (grouped or single key-value heads, norms, fused projections, partial
rotation, tied heads); its widths are chosen for the number of parameters alone. Imports transformers when asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCABULARY, CONTEXT, SEED = 32_000, 1024, 5


@dataclass(frozen=True)
class Family:
    """A family's configuration class, what its own configuration says beyond the class, and its two sizes.

    Attributes:
        config: name of the configuration class in transformers.
        shape: settings of both sizes.
        small: widths and depths for about 60 million parameters.
        large: the same for about 500 million.
    """

    config: str
    shape: dict[str, Any]
    small: dict[str, Any]
    large: dict[str, Any]


def _sizes(hidden: int, layers: int, heads: int, kv_heads: int, inner: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
    }


_TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_USUAL = {**_TOKENS, "max_position_embeddings": CONTEXT}
FAMILIES = {
    "Llama": Family(
        "LlamaConfig",
        {**_USUAL, "tie_word_embeddings": False},
        _sizes(512, 10, 8, 4, 1408),
        _sizes(1024, 28, 16, 4, 4096),
    ),
    "Qwen3": Family(
        "Qwen3Config",
        {**_USUAL, "tie_word_embeddings": True, "head_dim": 128},
        _sizes(768, 5, 8, 4, 2304),
        _sizes(1024, 28, 16, 8, 3072),
    ),
    "Gemma": Family(
        "GemmaConfig",
        {**_USUAL, "tie_word_embeddings": True, "head_dim": 256},
        _sizes(768, 6, 4, 1, 2048),
        _sizes(1152, 17, 4, 1, 6912),
    ),
    "Gemma 3": Family(
        "Gemma3TextConfig",
        {**_USUAL, "tie_word_embeddings": True, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 512},
        _sizes(768, 6, 4, 1, 2048),
        _sizes(1152, 17, 4, 1, 6912),
    ),
    "Phi": Family(
        "PhiConfig",
        {**_USUAL, "tie_word_embeddings": False, "partial_rotary_factor": 0.5},
        _sizes(512, 9, 8, 8, 2048),
        _sizes(1280, 21, 20, 20, 5120),
    ),
    "Phi-3": Family(
        "Phi3Config",
        {**_USUAL, "tie_word_embeddings": False, "original_max_position_embeddings": CONTEXT},
        _sizes(512, 9, 8, 8, 1408),
        _sizes(1280, 21, 20, 20, 3456),
    ),
    "GPT-2": Family(
        "GPT2Config",
        {**_TOKENS, "n_positions": CONTEXT, "tie_word_embeddings": True},
        {"n_embd": 640, "n_layer": 8, "n_head": 10},
        {"n_embd": 1280, "n_layer": 24, "n_head": 20},
    ),
}


def make_config(name: str, sizes: dict[str, Any]) -> Any:
    """The transformers configuration of a family in the sizes given."""
    import transformers

    family = FAMILIES[name]
    return getattr(transformers, family.config)(**{**family.shape, **sizes})


def make_model(name: str, sizes: dict[str, Any], folder: Path) -> int:
    """Write a random model with a tokenizer of numbered words, and count its parameters, a tied matrix once.

    The generator's seed is fixed, so the same call writes the same weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_config(make_config(name, sizes), dtype=torch.float32)
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    _numbered_words(model.config.get_text_config().vocab_size).save_pretrained(folder)
    return sum(one.numel() for one in model.parameters())


def _numbered_words(vocabulary: int) -> Any:
    """A tokenizer of the words w3, w4, ...: other tools' builders want one beside the weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", *(f"w{number}" for number in range(3, vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<pad>",
        padding_side="left",
    )
