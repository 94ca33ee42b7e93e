"""Attention grouped in one node and a cache that is written in place give what the plain graph gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgetune.export.stepwise import cache_in_place, graph
from edgetune.export.stepwise.cache_in_place import plain_bias
from edgetune.serve.stepwise.cache import Cache, without_room
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.sampling import Sampling

LENGTHS = (7, 30, 19)


@pytest.fixture(scope="module")
def plain(tiny_decoder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """The same model's graph with attention as single products, and a cache that is made anew by each step."""
    made = graph.export_decoder(tiny_decoder("llama"), tmp_path_factory.mktemp("plain"), grouped=False)
    assert not made.spec.in_place
    assert "GroupQueryAttention" not in {node.op_type for node in onnx.load(str(made.path)).graph.node}
    return Decoder(made.path, made.spec, threads=1)


@pytest.fixture(scope="module")
def roomy(llama_graph: Any) -> Decoder:
    """The graph as it is packed."""
    return Decoder(llama_graph.path, llama_graph.spec, threads=1)


@pytest.fixture
def rows(roomy: Decoder) -> list[list[int]]:
    drawn = np.random.default_rng(3)
    return [drawn.integers(3, roomy.spec.vocabulary, length).tolist() for length in LENGTHS]


def _next(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    return logits.argmax(axis=1)[:, None].astype(np.int64)


@pytest.mark.parametrize("chunk", [512, 8])
def test_padded_rows_get_the_logits_of_the_plain_graph(
    plain: Decoder, roomy: Decoder, rows: list[list[int]], chunk: int
) -> None:
    expected, before = plain.prefill(rows, chunk=chunk)
    found, cache = roomy.prefill(rows, chunk=chunk)
    memory = set()
    for _ in range(80):
        assert np.abs(found - expected).max() < 1e-5
        token = _next(expected)
        (expected, before), (found, cache) = plain.run(token, before), roomy.run(token, cache)
        memory.add(cache.values[0].data_ptr())
    assert cache.columns == before.columns == max(LENGTHS) + 80
    assert len(memory) <= 3  # moved twice at most, where the plain one is new at each step


def test_a_cache_may_be_gone_on_from_twice(roomy: Decoder, rows: list[list[int]]) -> None:
    _, start = roomy.prefill(rows)
    token = np.array([[5], [6], [7]])
    first, after = roomy.run(token, start)
    again, other = roomy.run(token + 40, start)  # somebody has written behind `start` already
    assert after.values[0].data_ptr() == start.values[0].data_ptr() != other.values[0].data_ptr()
    assert np.abs(first - again).max() > 1e-3
    repeated, _ = roomy.run(token, start)
    assert np.array_equal(repeated, first)
    behind, _ = roomy.run(token, after)
    beside, _ = roomy.run(token, _copied(roomy, after))
    assert np.array_equal(behind, beside)


def _copied(decoder: Decoder, cache: Cache) -> Cache:
    return decoder.store.cache(cache.arrays(), cache.mask)


def test_what_is_kept_holds_its_tokens_alone(roomy: Decoder, rows: list[list[int]]) -> None:
    logits, cache = roomy.prefill(rows[:1])
    kept = without_room(roomy.store, cache)
    assert kept.size_bytes < cache.size_bytes
    assert [value.shape()[2] for value in kept.values] == [LENGTHS[0]] * len(kept.values)
    for _ in range(3):
        assert np.array_equal(roomy.run(_next(logits), kept)[0], roomy.run(_next(logits), cache)[0])
    assert [value.shape()[2] for value in kept.values] == [LENGTHS[0]] * len(kept.values)


def test_an_answer_fills_the_context(plain: Decoder, roomy: Decoder, rows: list[list[int]]) -> None:
    sampling = Sampling(max_tokens=1000)
    found = roomy.generate_ids(rows, sampling)
    assert found == plain.generate_ids(rows, sampling)
    assert max(len(prompt) + len(answer) for prompt, answer in zip(rows, found, strict=True)) <= 160


@pytest.mark.long  # two exports of its own
def test_a_graph_that_masks_more_keeps_its_mask(
    tiny_decoder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the bias is not the plain one, it stays: here, because the plain one is said to look further back."""
    monkeypatch.setattr(cache_in_place, "plain_bias", lambda mask, tokens: plain_bias(mask, tokens) * 0)
    kept = graph.export_decoder(tiny_decoder("llama"), tmp_path / "kept")
    monkeypatch.undo()
    operators = [node.op_type for node in onnx.load(str(kept.path)).graph.node]
    assert "LessOrEqual" in operators
    assert kept.spec.in_place
    prompts = [[5, 6, 7, 8, 9], [9, 10, 11]]
    found, _ = Decoder(kept.path, kept.spec, threads=1).prefill(prompts)
    whole = graph.export_decoder(tiny_decoder("llama"), tmp_path / "whole")
    assert "LessOrEqual" not in {node.op_type for node in onnx.load(str(whole.path)).graph.node}
    expected, _ = Decoder(whole.path, whole.spec, threads=1).prefill(prompts)
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.long  # an export of its own
@pytest.mark.parametrize("family", ["gemma3"])
def test_a_sliding_window_keeps_a_cache_of_its_own(
    family: str, tiny_decoder: Callable[[str], Path], tmp_path: Path
) -> None:
    made = graph.export_decoder(tiny_decoder(family), tmp_path)
    operators = [node.op_type for node in onnx.load(str(made.path)).graph.node]
    assert operators.count("GroupQueryAttention") == made.spec.layers
    assert not made.spec.in_place


def test_the_plain_bias_looks_back_and_past_padding() -> None:
    low = cache_in_place.LOWEST
    found = plain_bias(np.array([[1, 1, 1], [0, 1, 1]]), 2)
    assert found.dtype == np.float32
    assert found.tolist() == [[[[0, 0, low], [0, 0, 0]]], [[[low, 0, low], [low, 0, 0]]]]
