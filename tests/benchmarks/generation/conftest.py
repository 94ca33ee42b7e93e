"""A tiny random llama beside its graphs in fp32 and int4, as the language models of the benchmark are made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 300,
    "max_position_embeddings": 128,
    # Trained weights are larger than the usual 0.02: with it the likeliest tokens nearly tie.
    "initializer_range": 0.3,
}


@pytest.fixture(scope="session")
def tiny_family(shared_folder: Callable[..., Path]) -> Path:
    """A folder with artefacts.json, the model and two graphs; not to be changed."""
    from edgetune.benchmarks.generation.artefacts import STEPS, make

    return shared_folder("tiny-family", lambda folder: make("Llama", TINY, folder, STEPS[:2]))
