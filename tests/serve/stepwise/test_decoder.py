"""The decoder against `generate` of transformers, token for token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgetune.serve.errors import BundleDamaged, EdgetuneError, InputError
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.sampling import Sampling

GREEDY_64 = Sampling(max_tokens=64)


@pytest.fixture(scope="module")
def decoder(tiny_llama: Any) -> Decoder:
    return Decoder(tiny_llama.graph, tiny_llama.spec, threads=1)


@pytest.fixture(scope="module")
def prompts(tiny_llama: Any, texts: list[str]) -> list[list[int]]:
    return [tiny_llama.tokenizer(text)["input_ids"] for text in texts]


@pytest.fixture(scope="module")
def expected(tiny_llama: Any, prompts: list[list[int]]) -> list[list[int]]:
    answers = [tiny_llama.greedy(ids) for ids in prompts]
    assert len({tuple(ids) for ids in answers}) == len(answers), "flat logits would prove nothing"
    return answers


def test_greedy_ids_are_those_of_transformers(
    decoder: Decoder, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    assert [decoder.generate_ids([ids], GREEDY_64)[0] for ids in prompts] == expected


def test_a_left_padded_batch_gives_what_each_prompt_gives_alone(
    decoder: Decoder, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    assert len({len(ids) for ids in prompts}) > 1
    assert decoder.generate_ids(prompts, GREEDY_64) == expected
    assert decoder.generate_ids(prompts, GREEDY_64, batch_size=3) == expected


def test_a_prompt_in_chunks_gives_the_same_logits(decoder: Decoder, prompts: list[list[int]]) -> None:
    whole, cache = decoder.prefill(prompts)
    chunked, chunked_cache = decoder.prefill(prompts, chunk=7)
    np.testing.assert_allclose(chunked, whole, atol=2e-4)
    np.testing.assert_array_equal(cache.mask, chunked_cache.mask)
    assert whole.shape == (len(prompts), decoder.spec.vocabulary)


def test_the_end_token_is_the_last_one(decoder: Decoder, tiny_llama: Any, prompts: list[list[int]]) -> None:
    tokens = tiny_llama.greedy(prompts[0])
    end = next(token for place, token in enumerate(tokens) if place >= 5 and token not in tokens[:place])
    spec = msgspec.structs.replace(tiny_llama.spec, eos_ids=[end, 2])
    ending = Decoder(tiny_llama.graph, spec, threads=1)
    expected = tiny_llama.greedy(prompts[0], eos_token_id=[end, 2])
    assert expected == tokens[: tokens.index(end) + 1]
    # The others go on when one of the batch has ended.
    alone = [ending.generate_ids([ids], GREEDY_64)[0] for ids in prompts]
    assert ending.generate_ids(prompts, GREEDY_64) == alone
    assert alone[0] == expected


def test_the_context_ends_an_answer(decoder: Decoder, tiny_llama: Any, prompts: list[list[int]]) -> None:
    spec = msgspec.structs.replace(tiny_llama.spec, context_tokens=len(prompts[0]) + 3)
    answer = Decoder(tiny_llama.graph, spec, threads=1).generate_ids([prompts[0]], GREEDY_64)[0]
    assert answer == tiny_llama.greedy(prompts[0], tokens=3)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([], "The prompt is empty"),
        ([1] * 256, "The prompt has 256 tokens"),
        ([1, 5, -1, 99_999], r"does not know: \[-1, 99999\]"),
    ],
)
def test_prompts_that_cannot_be_answered_are_refused(decoder: Decoder, ids: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        decoder.generate_ids([[1, 2, 3], ids])


def test_the_longest_prompt_is_answered_with_one_token(decoder: Decoder) -> None:
    assert len(decoder.generate_ids([[7] * 255], GREEDY_64)[0]) == 1


def test_stop_strings_need_text(decoder: Decoder) -> None:
    with pytest.raises(InputError, match="Stop strings"):
        decoder.generate_ids([[1, 2]], Sampling(stop=("x",)))


def test_a_batch_of_less_than_one_is_refused(decoder: Decoder) -> None:
    with pytest.raises(InputError, match="The batch size is 0"):
        decoder.generate_ids([[1, 2]], batch_size=0)


def test_a_description_of_another_graph_is_refused(tiny_llama: Any) -> None:
    spec = msgspec.structs.replace(tiny_llama.spec, layers=3, vocabulary=7)
    with pytest.raises(BundleDamaged) as caught:
        Decoder(tiny_llama.graph, spec, threads=1)
    assert "it does not take input.past_key_values.layers.2.keys" in caught.value.found
    assert "it does not give output.past_key_values.layers.2.values" in caught.value.found
    assert "logits instead of 7" in caught.value.found
    fewer = msgspec.structs.replace(tiny_llama.spec, layers=1)
    with pytest.raises(BundleDamaged, match=r"it takes input\.past_key_values\.layers\.1\.keys"):
        Decoder(tiny_llama.graph, fewer, threads=1)


def test_a_file_that_is_no_graph_is_refused(tiny_llama: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleDamaged, match="cannot open"):
        Decoder(tmp_path / "model.onnx", tiny_llama.spec)


def test_a_closed_decoder_says_so(tiny_llama: Any) -> None:
    decoder = Decoder(tiny_llama.graph, tiny_llama.spec, threads=1)
    assert decoder.providers == ["CPUExecutionProvider"]
    decoder.close()
    assert decoder.providers == []
    with pytest.raises(EdgetuneError, match="closed"):
        decoder.generate_ids([[1, 2]])


@pytest.mark.slow
def test_the_graph_of_one_row_gives_the_same(
    batch_one_llama: Any, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    decoder = Decoder(batch_one_llama.graph, batch_one_llama.spec, threads=1)
    assert decoder.generate_ids(prompts, GREEDY_64) == expected
    whole, _ = decoder.prefill(prompts[:1])
    chunked, _ = decoder.prefill(prompts[:1], chunk=7)
    np.testing.assert_allclose(chunked, whole, atol=2e-4)


@pytest.mark.slow
def test_real_weights_answer_as_transformers_does(stories: Any) -> None:
    decoder = Decoder(stories.graph, stories.spec, threads=1)
    prompts = [stories.tokenizer(text)["input_ids"] for text in ("Once upon a time", "Lily and Tim saw a big dog. He")]
    expected = [stories.greedy(ids) for ids in prompts]
    assert decoder.generate_ids(prompts, GREEDY_64) == expected
