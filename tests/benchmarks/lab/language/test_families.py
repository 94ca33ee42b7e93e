"""Random models in the shapes of families: how large they are, and that the same call writes the same model."""

from __future__ import annotations

import pytest

from benchmarks.lab.language.families import FAMILIES, VOCABULARY, make_config, make_model


def parameters(name: str, sizes: dict) -> int:
    """Counted without a byte of memory for them."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(make_config(name, sizes))
    assert model.config.vocab_size == VOCABULARY
    return sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_both_sizes_of_every_family(name):
    assert 57e6 < parameters(name, FAMILIES[name].small) < 67e6
    assert 465e6 < parameters(name, FAMILIES[name].large) < 525e6


def test_families_keep_what_makes_them():
    from transformers import AutoModelForCausalLM

    configs = {name: make_config(name, family.small) for name, family in FAMILIES.items()}
    assert {name: config.model_type for name, config in configs.items()} == {
        "Llama": "llama",
        "Qwen3": "qwen3",
        "Gemma": "gemma",
        "Gemma 3": "gemma3_text",
        "Phi": "phi",
        "Phi-3": "phi3",
        "GPT-2": "gpt2",
    }
    assert {name for name, config in configs.items() if config.tie_word_embeddings} == {
        "Qwen3",
        "Gemma",
        "Gemma 3",
        "GPT-2",
    }
    # Each is a class of its own that generates, and no other's.
    import torch

    with torch.device("meta"):
        kinds = {type(AutoModelForCausalLM.from_config(config)).__name__ for config in configs.values()}
    assert len(kinds) == len(FAMILIES)


def test_the_same_call_writes_the_same_model(tmp_path):
    from transformers import AutoTokenizer

    tiny = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 40, "n_positions": 64}
    counts = [make_model("GPT-2", tiny, tmp_path / name) for name in ("one", "two")]
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    # Embedding and head share one matrix: 40 x 32, positions 64 x 32, the block and the last norm.
    assert counts == [40 * 32 + 64 * 32 + (12 * 32 * 32 + 13 * 32) + 2 * 32] * 2
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert tokenizer("w3 w39 nothing")["input_ids"] == [3, 39, 0]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
