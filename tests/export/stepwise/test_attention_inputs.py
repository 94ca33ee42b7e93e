"""Rotation inside the attention node and packed inputs: which graphs have them, and that they change no answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgetune.export.stepwise import graph as module
from edgetune.export.stepwise.graph import export_decoder
from edgetune.serve.stepwise.decoder import Decoder

LAYERS = 2
# What is left of two layers: a Split of queries, keys and values where norms or biases stand before the attention, and
# one of gate and up.
LEFT = {
    "qwen2": Counter(Split=2 * LAYERS),
    "qwen3": Counter(Split=2 * LAYERS),
    "gemma": Counter(Split=LAYERS),
    "gemma3": Counter(Split=2 * LAYERS),
    "phi": Counter(Split=LAYERS),
    "phi3": Counter(Split=LAYERS),
    # Heads of 8, and 4 of 16 rotated, are less than the kernel rotates.
    "llama": Counter(Split=2 * LAYERS, RotaryEmbedding=2 * LAYERS),
    "gpt_neox": Counter(Split=2 * LAYERS, RotaryEmbedding=2 * LAYERS),
}
# Exported for these tests alone; gemma3 has the norms of qwen3's queries and keys, and windows besides, and the tables
# of phi have a test of their own.
MORE = {"qwen2", "qwen3", "gemma", "phi", "phi3", "gpt_neox"}
LENGTHS = (7, 30, 19)


def _marked(families: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.long if name in MORE else ()) for name in families]


def operators(path: Path) -> Counter[str]:
    """Splits and rotations of a graph."""
    found = (node.op_type for node in onnx.load(str(path)).graph.node)
    return Counter(each for each in found if each in ("Split", "RotaryEmbedding"))


@pytest.mark.slow
@pytest.mark.parametrize("family", _marked(LEFT))
def test_rotations_and_splits_go_where_the_kernel_takes_them_over(
    decoder_graph: Callable[[str], Any], family: str
) -> None:
    made = decoder_graph(family)
    assert operators(made.path) == LEFT[family]
    assert made.spec.begins_apart == ("RotaryEmbedding" not in LEFT[family])


@pytest.fixture
def outside(tiny_decoder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`outside("phi")` is a family's graph as it is with rotations and splits of their own."""

    def made(family: str) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(module, "rotate_inside", lambda program: 0)
            patch.setattr(module, "pack_inputs", lambda program: None)
            return export_decoder(tiny_decoder(family), tmp_path / family)

    return made


@pytest.mark.long
def test_the_exporters_own_attention_for_one_row_takes_tables_too(decoder_graph: Callable[..., Any]) -> None:
    """Phi's, whose heads are rotated in part, comes without room for the tables among its inputs."""
    one, many = decoder_graph("phi", batch_one=True), decoder_graph("phi")
    assert one.spec.batch_one
    assert not one.spec.begins_apart
    rows = [np.random.default_rng(3).integers(3, one.spec.vocabulary, length).tolist() for length in LENGTHS]
    found, expected = (Decoder(each.path, each.spec, threads=1) for each in (one, many))
    assert found.generate_ids(rows) == expected.generate_ids(rows)


@pytest.mark.slow
@pytest.mark.parametrize("family", _marked(("qwen3", "phi", "gemma3")))
def test_every_answer_is_that_of_rotations_outside(
    decoder_graph: Callable[[str], Any], outside: Callable[[str], Any], family: str
) -> None:
    inside, plain = decoder_graph(family), outside(family)
    assert inside.spec.begins_apart
    assert not plain.spec.begins_apart
    assert operators(plain.path)["RotaryEmbedding"] == 2 * LAYERS
    drawn = np.random.default_rng(3)
    rows = [drawn.integers(3, inside.spec.vocabulary, length).tolist() for length in LENGTHS]
    found, expected = (Decoder(each.path, each.spec, threads=1) for each in (inside, plain))
    for prompts in (rows, [rows[1], rows[1]], rows[2:]):
        assert found.generate_ids(prompts) == expected.generate_ids(prompts)
        logits = found.prefill(prompts)[0]
        assert np.abs(logits - expected.prefill(prompts)[0]).max() < 1e-4
