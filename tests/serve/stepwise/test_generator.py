"""Prompts and chats in, text out: the same as transformers gives, whole, in pieces and in batches."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgetune.serve.errors import BundleDamaged, BundleFormatError, EdgetuneError, InputError, PromptTooLong
from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.sampling import Sampling

GREEDY = Sampling(max_tokens=40)
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is my card?"}]


def test_an_answer_is_that_of_transformers(generator: Generator, tiny_llama: Any, texts: list[str]) -> None:
    tokenizer = tiny_llama.tokenizer
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        expected = tiny_llama.greedy(ids, 40)
        answer = generator.generate(text, GREEDY)
        assert list(answer.token_ids) == expected
        assert answer.prompt_tokens == len(ids)
        whole = tokenizer.decode([*ids, *expected], skip_special_tokens=True)
        assert text + answer.text == whole
        assert answer.finish == ("stop" if expected[-1] == 2 else "length")


def test_the_pieces_are_the_answer(generator: Generator, texts: list[str]) -> None:
    for text in texts:
        pieces = list(generator.stream(text, GREEDY))
        whole = generator.generate(text, GREEDY)
        assert "".join(piece.text for piece in pieces) == whole.text
        assert tuple(token for piece in pieces for token in piece.token_ids) == whole.token_ids
        assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1].finish == whole.finish
        assert all(piece.text for piece in pieces[:-1])


def test_a_stream_runs_no_further_than_it_is_read(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    real = generator.decoder.run
    monkeypatch.setattr(generator.decoder, "run", lambda *given: runs.append(1) or real(*given))
    stream = generator.stream("the card", GREEDY)
    assert runs == []
    first = next(stream)
    assert len(runs) == len(first.token_ids)


def test_a_batch_gives_what_each_prompt_gives_alone(generator: Generator, texts: list[str]) -> None:
    for sampling in (GREEDY, Sampling(max_tokens=30, temperature=1.0, top_k=20, seed=3, logprobs=2)):
        alone = [generator.generate(text, sampling) for text in texts]
        together = generator.generate_batch(texts, sampling, batch_size=3)
        assert [one.token_ids for one in together] == [one.token_ids for one in alone]
        assert [one.text for one in together] == [one.text for one in alone]


def test_a_seed_repeats_an_answer(generator: Generator) -> None:
    def drawn(seed: int) -> str:
        return generator.generate("the card", Sampling(temperature=1.5, seed=seed, max_tokens=30)).text

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_stop_string_that_spans_tokens_ends_the_answer(generator: Generator, texts: list[str]) -> None:
    whole = generator.generate(texts[0], GREEDY)
    pieces = [piece.text for piece in generator.stream(texts[0], GREEDY)]
    place = next(place for place in range(4, len(pieces)) if len(pieces[place]) > 0 and len(pieces[place + 1]) > 0)
    stop = pieces[place][-1] + pieces[place + 1][0]
    expected = whole.text[: whole.text.index(stop)]
    for answer in (
        generator.generate(texts[0], Sampling(max_tokens=40, stop=("never there", stop))),
        generator.generate_batch(texts, Sampling(max_tokens=40, stop=("never there", stop)))[0],
    ):
        assert (answer.text, answer.finish) == (expected, "stop")
        assert len(answer.token_ids) < len(whole.token_ids)
        assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]


def test_what_might_begin_a_stop_string_is_shown_in_the_end(generator: Generator, texts: list[str]) -> None:
    whole = generator.generate(texts[0], GREEDY)
    kept = generator.generate(texts[0], Sampling(max_tokens=40, stop=(whole.text[-3:] + "never",)))
    assert (kept.text, kept.finish) == (whole.text, whole.finish)


def test_log_probabilities_belong_to_their_tokens(generator: Generator, texts: list[str]) -> None:
    answer = generator.generate(texts[0], Sampling(max_tokens=10, logprobs=2))
    assert [one.token_id for one in answer.logprobs] == list(answer.token_ids)
    for one in answer.logprobs:
        assert one.top[0] == (one.token_id, one.logprob), "greedy takes the likeliest"
        assert one.top[1][1] <= one.logprob <= 0
    logits, _ = generator.decoder.prefill([generator.encode(texts[0])])
    shares = np.exp(logits[0].astype(np.float64) - logits[0].max())
    np.testing.assert_allclose(np.exp(answer.logprobs[0].logprob), shares.max() / shares.sum(), rtol=1e-4)
    assert generator.generate(texts[0], GREEDY).logprobs == ()


def test_a_chat_is_rendered_and_answered_as_transformers_does(generator: Generator, tiny_llama: Any) -> None:
    ids = tiny_llama.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert generator.chat_ids(CHAT) == list(ids)
    assert list(generator.generate(CHAT, GREEDY).token_ids) == tiny_llama.greedy(ids, 40)


def test_a_model_without_template_takes_no_chats(tiny_llama: Any) -> None:
    decoder = Decoder(tiny_llama.graph, tiny_llama.spec, threads=1)
    plain = Generator(decoder, TokenCodec(tiny_llama.folder / "tokenizer.json"))
    with pytest.raises(InputError, match="no chat template"):
        plain.generate(CHAT)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("", "The prompt is empty"), ("x " * 600, r"The prompt has [\d,]+ tokens"), (CHAT[:1], "none of the user's")],
)
def test_faults_are_raised_before_the_first_piece(generator: Generator, prompt: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        generator.stream(prompt)
    with pytest.raises(InputError, match=said):
        generator.generate_batch(["fine", prompt])


def test_logits_that_are_no_numbers_are_told(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    real = generator.decoder.run

    def broken(*given: Any) -> Any:
        logits, cache = real(*given)
        return np.full_like(logits, np.nan), cache

    monkeypatch.setattr(generator.decoder, "run", broken)
    with pytest.raises(EdgetuneError, match="no numbers"):
        generator.generate("x")


def test_what_two_prompts_share_is_run_once(tiny_llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = "the card has not arrived and nobody answers "
    prompts = [begin + "today", begin + "on Monday, help"]
    with tiny_llama.generator(prefix_bytes=0) as fresh:
        expected = fresh.generate_batch(prompts, GREEDY, batch_size=1)
        assert [answer.cached_tokens for answer in expected] == [0, 0]
    with tiny_llama.generator() as generator:
        ran: list[int] = []
        real = generator.decoder.run
        monkeypatch.setattr(generator.decoder, "run", lambda ids, *more: ran.append(ids.size) or real(ids, *more))
        answers = [generator.generate(prompt, GREEDY) for prompt in prompts]
        assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
        shared = answers[1].cached_tokens
        assert shared >= len(generator.encode(begin)) - 1
        assert ran[len(answers[0].token_ids)] == answers[1].prompt_tokens - shared
        # The whole batch starts behind what all of it shares.
        together = generator.generate_batch(prompts, GREEDY)
        assert [answer.token_ids for answer in together] == [answer.token_ids for answer in expected]
        assert [answer.cached_tokens for answer in together] == [shared, shared]


def test_a_system_prompt_is_remembered_for_all_chats(tiny_llama: Any) -> None:
    system = [{"role": "system", "content": "You answer questions about cards, briefly."}]
    chat = [*system, {"role": "user", "content": "Why?"}]
    with tiny_llama.generator() as generator:
        expected = generator.generate(chat, GREEDY)
        generator.prefixes.clear()
        kept = generator.remember(system)
        ids = generator.chat_ids(chat)
        assert generator.codec.decode(ids[:kept], special=True).endswith("briefly.</s><|user|>")
        answer = generator.generate(chat, GREEDY)
        assert (answer.cached_tokens, answer.token_ids) == (kept, expected.token_ids)
        assert generator.remember("the card has not arrived") > 3
    with tiny_llama.generator(prefix_bytes=1000) as small, pytest.raises(InputError, match="larger prefix_bytes"):
        small.remember(system)


def test_a_tokenizer_of_another_model_is_refused(tiny_llama: Any, tmp_path: Path) -> None:
    decoder = Decoder(tiny_llama.graph, tiny_llama.spec, threads=1)
    tokens = json.loads((tiny_llama.folder / "tokenizer.json").read_text("utf-8"))
    tokens["added_tokens"].append({**tokens["added_tokens"][0], "id": len(tokens["model"]["vocab"]), "content": "<x>"})
    (tmp_path / "more.json").write_text(json.dumps(tokens), "utf-8")
    with pytest.raises(BundleDamaged, match="does not fit its graph: it knows 321 tokens, the graph 320"):
        Generator(decoder, TokenCodec(tmp_path / "more.json"))
    decoder.spec = msgspec.structs.replace(tiny_llama.spec, eos_ids=[2, 900], vocabulary=1000)
    with pytest.raises(BundleDamaged, match=r"lacks the tokens \[900\]"):
        Generator(decoder, TokenCodec(tiny_llama.folder / "tokenizer.json"))


def test_a_bundle_opens_and_answers(language_bundle: Callable[..., Path], generator: Generator, tmp_path: Path) -> None:
    folder = language_bundle(tmp_path / "bundle")
    with Generator.open(folder, threads=1) as opened:
        assert opened.generate(CHAT, GREEDY) == generator.generate(CHAT, GREEDY)
    with pytest.raises(EdgetuneError, match="closed"):
        opened.generate("x")
    with pytest.raises(BundleFormatError, match="tells of no decoder"):
        Generator.open(language_bundle(tmp_path / "other", task="text-classification", generation=None))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleDamaged, match=r"tokenizer\.json has 2 bytes"):
        Generator.open(folder)


def test_answering_imports_neither_torch_nor_jinja(language_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = language_bundle(tmp_path / "bundle")
    script = (
        "import sys\n"
        "from edgetune.serve.stepwise.generator import Generator\n"
        f"answer = Generator.open({str(folder)!r}, threads=1).generate('the card')\n"
        "assert answer.token_ids\n"
        "heavy = {'torch', 'transformers', 'onnx', 'jinja2', 'pandas', 'pydantic', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_prompt_of_a_megabyte_is_refused_before_it_is_tokenized(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context of 256 tokens reads 8,192 characters at most: tokens of 32 characters each."""
    monkeypatch.setattr(generator.codec, "encode", lambda *given, **named: pytest.fail("it was tokenized"))
    for ask in (generator.encode, generator.prompt_ids, lambda text: generator.chat_ids([_user(text)])):
        with pytest.raises(PromptTooLong, match=r"The prompt has 1,\d{3},\d{3} characters\.") as caught:
            ask("card " * 210_000)
        assert caught.value.expected.startswith("at most 8,192: the context holds 256 tokens")


def test_a_long_prompt_that_may_fit_is_tokenized(generator: Generator) -> None:
    assert len(generator.encode("a" * 8192)) > 256  # which answering refuses, by its tokens
    with pytest.raises(PromptTooLong):
        generator.encode("a" * 8193)


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
