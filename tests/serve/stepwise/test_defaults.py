"""The sampling of a model's authors: taken where it can be used, and only where they draw at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetune.serve.errors import BundleDamaged
from edgetune.serve.stepwise.defaults import SamplingDefaults

DRAWN = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.05}


@pytest.mark.parametrize(
    ("config", "values"),
    [
        ({"do_sample": True, **DRAWN, "eos_token_id": 2}, DRAWN),
        (DRAWN, {"repetition_penalty": 1.05}),
        ({"do_sample": False, **DRAWN}, {"repetition_penalty": 1.05}),
        ({"do_sample": True, "temperature": None, "top_p": 0, "top_k": -1, "min_p": "x"}, {}),
        ({}, {}),
    ],
)
def test_what_is_taken(config: dict[str, object], values: dict[str, float], tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    assert SamplingDefaults.open(path).values() == {}
    path.write_text(json.dumps(config), encoding="utf-8")
    assert SamplingDefaults.open(path).values() == values


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
def test_what_cannot_be_read_is_damage(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_bytes(content)
    with pytest.raises(BundleDamaged, match=r"generation_config\.json"):
        SamplingDefaults.open(path)
