"""Sequences that start behind keys and values: as transformers answers behind them, alone, together and by name."""

import shutil

import msgspec
import numpy as np
import pytest
import torch

from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.first_caches import first_cache_bytes
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.scheduler import Scheduler
from edgetune.serve.stepwise.spec import FirstCacheSpec
from edgetune.serve.stepwise.template import ChatTemplate
from edgetune.tune.stepwise.first_cache import FirstCache, put_before

TOKENS = {"legal": 3, "medical": 9}
PROMPTS = ("the card has not arrived", "why was my transfer refused yesterday, please help me", "I can")


@pytest.fixture(scope="module")
def behind(tiny_llama, tmp_path_factory):
    """The tiny llama with two first caches, drawn at random: its folder, its spec, and the caches by name."""
    folder, spec = tmp_path_factory.mktemp("first") / "model", tiny_llama.spec
    shutil.copytree(tiny_llama.folder, folder)
    random, caches = np.random.default_rng(3), {}
    for name, tokens in TOKENS.items():
        shape = (spec.layers * 2, 1, spec.kv_heads, tokens, spec.head_dim)
        caches[name] = list(random.normal(0, 1, shape).astype(np.float32))
        (folder / f"{name}.bin").write_bytes(first_cache_bytes(caches[name]))
    listed = [FirstCacheSpec(name=name, file=f"{name}.bin", tokens=tokens) for name, tokens in TOKENS.items()]
    context = spec.context_tokens - max(TOKENS.values())
    return folder, msgspec.structs.replace(spec, first_caches=listed, context_tokens=context), caches


@pytest.fixture
def generator(behind):
    folder, spec, _ = behind
    opened = Generator(
        Decoder(folder / "model.onnx", spec, threads=1),
        TokenCodec(folder / "tokenizer.json"),
        ChatTemplate.open(folder),
    )
    yield opened
    opened.close()


def expected(tiny_llama, caches, prompt, tokens=12):
    """What transformers gives behind a first cache: by whole passes, without a cache of its own."""
    pairs = [torch.from_numpy(part) for part in caches]
    model = put_before(tiny_llama.model, FirstCache(tuple(zip(pairs[::2], pairs[1::2], strict=True))))
    ids = torch.tensor([tiny_llama.tokenizer(prompt)["input_ids"]])
    start = ids.shape[1]
    try:
        with torch.inference_mode():
            for _ in range(tokens):
                ids = torch.cat((ids, model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)), 1)
    finally:
        model.__dict__.pop("_first_hook").remove()
        del model._first_cache
    return ids[0, start:].tolist()


def until_end(ids, spec):
    ends = [place for place, token in enumerate(ids) if token in spec.eos_ids]
    return ids[: ends[0] + 1] if ends else ids


def test_each_adapter_answers_as_transformers_does_and_the_first_where_none_is_named(behind, tiny_llama, generator):
    _, spec, caches = behind
    wanted = {
        name: [until_end(expected(tiny_llama, caches[name], prompt), spec) for prompt in PROMPTS] for name in TOKENS
    }
    assert wanted["legal"] != wanted["medical"]
    for name in TOKENS:
        for _ in range(2):  # the second time behind what is known of the prompts
            answers = generator.generate_batch(PROMPTS, Sampling(max_tokens=12), adapter=name)
            assert [list(one.token_ids) for one in answers] == wanted[name]
            alone = [generator.generate(prompt, Sampling(max_tokens=12), adapter=name) for prompt in PROMPTS]
            assert [list(one.token_ids) for one in alone] == wanted[name]
    assert list(generator.generate(PROMPTS[0], Sampling(max_tokens=12)).token_ids) == wanted["legal"][0]
    assert generator.adapters == ("legal", "medical")
    with pytest.raises(InputError, match="no adapter 'fiscal'") as error:
        generator.generate(PROMPTS[0], adapter="fiscal")
    assert error.value.expected == "one of legal, medical"


def test_answers_behind_unlike_adapters_take_their_steps_together(behind, tiny_llama, generator):
    _, spec, caches = behind
    asked = [(prompt, name) for prompt in PROMPTS for name in TOKENS]
    with Scheduler(generator, rows=len(asked)) as scheduler:
        handles = [scheduler.submit(generator.encode(prompt), Sampling(max_tokens=12), name) for prompt, name in asked]
        given = [list(handle.result().token_ids) for handle in handles]
    assert given == [until_end(expected(tiny_llama, caches[name], prompt), spec) for prompt, name in asked]


def test_what_is_known_of_a_prompt_is_known_behind_one_adapter_alone(generator):
    prompt = PROMPTS[1]
    tokens = len(generator.encode(prompt))
    assert generator.generate(prompt, Sampling(max_tokens=2), adapter="medical").cached_tokens == 0
    assert generator.generate(prompt, Sampling(max_tokens=2), adapter="legal").cached_tokens == 0
    assert generator.generate(prompt, Sampling(max_tokens=2), adapter="legal").cached_tokens == tokens - 1
    generator.prefixes.clear()
    assert generator.remember(prompt, adapter="medical") == tokens
    longer = prompt + " and thanks"
    assert generator.generate(longer, Sampling(max_tokens=2), adapter="legal").cached_tokens == 0
    assert generator.generate(longer, Sampling(max_tokens=2), adapter="medical").cached_tokens >= tokens - 1


def test_the_prompts_own_probabilities_are_those_behind_the_adapter(generator):
    ids = generator.encode(PROMPTS[0])
    echoed = Sampling(max_tokens=1, logprobs=0, echo_logprobs=True)
    legal, medical = (generator.generate(PROMPTS[0], echoed, adapter=name).prompt_logprobs for name in TOKENS)
    assert len(legal) == len(ids)
    assert [one.logprob for one in legal[1:]] != [one.logprob for one in medical[1:]]


def test_a_file_that_is_cut_or_gone_is_refused(behind, tmp_path):
    folder, spec, _ = behind
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / "legal.bin").write_bytes(b"1234")
    with pytest.raises(BundleDamaged, match=r"legal\.bin has 4 bytes"):
        Decoder(tmp_path / "cut" / "model.onnx", spec, threads=1)
    (tmp_path / "cut" / "legal.bin").unlink()
    with pytest.raises(BundleDamaged, match=r"legal\.bin cannot be read"):
        Decoder(tmp_path / "cut" / "model.onnx", spec, threads=1)
