"""The gate of the shipped runtime: it meets every border that a model has, and finds what goes wrong behind one."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from transformers import AutoTokenizer

from edgetune.export.stepwise import borders as gate
from edgetune.export.stepwise.borders import check_borders
from edgetune.export.stepwise.graph import open_decoder
from edgetune.serve.errors import ParityError
from edgetune.serve.stepwise.cache import Cache
from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.group import answer_together
from edgetune.serve.stepwise.sampling import Sampling


@pytest.fixture(scope="module")
def opened(tiny_decoder, decoder_graph, prompts):
    """`opened("llama")`: graph, model and the ids of the prompts."""

    def parts(family, *, batch_one=False):
        folder = tiny_decoder(family)
        rows = [AutoTokenizer.from_pretrained(folder)(prompt)["input_ids"] for prompt in prompts]
        return decoder_graph(family, batch_one=batch_one), open_decoder(folder), rows

    return parts


def test_the_borders_are_crossed_and_named(opened):
    crossing = check_borders(*opened("multi_query"))
    assert (crossing.crossed, crossing.beyond) == ((128,), ())
    assert 0 < crossing.max_abs_diff < 1e-3
    assert "across 128 tokens, in pieces, together and behind a prefix in the cache" in crossing.sentence()


@pytest.mark.long
@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3"])
def test_a_window_is_crossed(opened, family):
    assert check_borders(*opened(family)).crossed == (24, 128)


@pytest.mark.long
def test_a_graph_of_one_row_is_proven_too(opened):
    assert check_borders(*opened("llama", batch_one=True)).crossed == (128,)


def test_a_text_that_would_take_too_long_is_named(opened, monkeypatch):
    graph, model, rows = opened("multi_query")
    monkeypatch.setattr(gate, "borders", lambda config: (24, 150))
    monkeypatch.setattr(gate, "PREFILL_TOKENS", 12)
    monkeypatch.setattr(gate, "MOST_WORK", 1)
    crossing = check_borders(graph, model, rows)
    assert (crossing.crossed, crossing.beyond) == ((12,), (24, 150))
    assert "a text beyond 24, 150 tokens would take too long" in crossing.sentence()


def test_a_context_shorter_than_a_piece_is_proven(opened):
    graph, model, rows = opened("multi_query")
    short = dataclasses.replace(graph, spec=msgspec.structs.replace(graph.spec, context_tokens=20))
    assert check_borders(short, model, rows).crossed == ()


def test_steps_that_go_wrong_behind_a_border_are_found(opened, monkeypatch):
    """Right up to 24 tokens, and then a token that the model never saw: as a rotation that changes within the cache."""
    run = Decoder.run

    def forgetful(self, ids, cache, real=None):
        return run(self, ids if cache.columns < 24 else np.zeros_like(ids), cache, real)

    monkeypatch.setattr(gate, "borders", lambda config: (24,))
    monkeypatch.setattr(Decoder, "run", forgetful)
    with pytest.raises(ParityError, match="the step at token 24 in the shipped runtime: logits differ by") as told:
        check_borders(*opened("multi_query"))
    assert "token 23" not in told.value.found


def test_a_prefix_that_shares_its_memory_is_found(opened, monkeypatch):
    """What the runtime did: of one row and one head this copies nothing."""

    def shared(store, cache):
        return Cache(tuple(store.value(np.ascontiguousarray(array)) for array in cache.arrays()), cache.mask)

    monkeypatch.setattr(gate, "without_room", shared)
    with pytest.raises(ParityError, match="a prompt that begins as an earlier one, all of it, in the shipped runtime"):
        check_borders(*opened("multi_query"))


@pytest.mark.parametrize("family", ["multi_query", pytest.param("gemma_mqa", marks=pytest.mark.long)])
def test_one_key_value_head_and_the_prefix_cache(tiny_decoder, decoder_graph, family):
    """Of one row and one head nothing had been copied: prompts that begin alike got other tokens from the first on."""
    import torch

    graph, model = decoder_graph(family), open_decoder(tiny_decoder(family))
    endless = msgspec.structs.replace(graph.spec, eos_ids=[])
    codec = TokenCodec(tiny_decoder(family) / "tokenizer.json")
    common = list(range(10, 60))
    with Generator(Decoder(graph.path, endless, threads=1), codec) as generator:
        for tail in ([7, 8, 9], [30, 31], [7, 8, 9, 40, 41, 42], []):
            prompt = [*common, *tail]
            answers = [generator.answer(prompt, Sampling(max_tokens=24))]
            for _ in answer_together(generator.decoder, answers, batch_size=1, prefixes=generator.prefixes):
                pass
            ids = torch.tensor([prompt])
            with torch.inference_mode():
                expected = model.generate(ids, do_sample=False, max_new_tokens=24, eos_token_id=None, pad_token_id=0)
            assert answers[0].token_ids == expected[0, len(prompt) :].tolist()
        assert answers[0].cached_tokens >= 49
