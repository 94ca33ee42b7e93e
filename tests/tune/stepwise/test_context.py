"""What a configuration says of lengths: the context, and the borders within it."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig, MistralConfig, Phi3Config, Qwen2Config

from edgetune.tune.stepwise.context import borders, context_finding, position_limit, with_constant_rotations

LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
NARROW: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}


def _phi3(**more: Any) -> Phi3Config:
    return Phi3Config(
        **{**NARROW, "max_position_embeddings": 512, "original_max_position_embeddings": 128, "pad_token_id": 0, **more}
    )


def test_the_context_is_what_the_configuration_says() -> None:
    assert position_limit(LlamaConfig(max_position_embeddings=300)) == 300
    assert position_limit(GPT2Config(n_positions=64)) == 64
    assert position_limit(_phi3()) == 512
    assert context_finding(_phi3()) == ()


def test_longrope_is_taken_for_its_original_length() -> None:
    config = _phi3(rope_parameters=LONGROPE)
    assert position_limit(config) == 128
    (finding,) = context_finding(config)
    assert finding.startswith("The context is 128 tokens, the model's original length, and not 512: ")


def test_borders_are_windows_and_original_lengths() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 100}
    assert borders(LlamaConfig()) == ()
    assert borders(MistralConfig(sliding_window=24)) == (24,)
    assert borders(Qwen2Config(sliding_window=24, use_sliding_window=False)) == ()
    assert borders(LlamaConfig(max_position_embeddings=400, rope_parameters=yarn)) == (100,)
    by_kind = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": yarn}
    assert borders(Gemma3TextConfig(sliding_window=16, rope_parameters=by_kind)) == (16, 100)
    assert borders(_phi3(rope_parameters=LONGROPE, sliding_window=40)) == (40, 128)


@pytest.mark.parametrize(("more", "changed"), [({}, True), ({"alpha": 1000.0}, False)])
def test_dynamic_scaling_is_none_within_the_context(more: dict[str, float], changed: bool) -> None:
    config = LlamaConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4, **more})
    assert with_constant_rotations(config) is changed
    assert config.rope_parameters["rope_type"] == ("default" if changed else "dynamic")
    assert not with_constant_rotations(LlamaConfig())
