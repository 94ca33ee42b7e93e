"""Logits of several positions where they are asked for, and answers guessed ahead: the same tokens, in fewer runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgetune.compress.gptq.quantization import quantize_decoder
from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.serve.errors import InputError
from edgetune.serve.session import open_session
from edgetune.serve.stepwise.bound import LOGITS_FROM
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.group import answer_together
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.scheduler import Scheduler

# A tiny random model repeats itself soon, which is what is guessed; the third prompt quotes nothing at first.
PROMPTS = [[1, *range(5, 30), 5, 6, 7], [1, *[9, 8, 7, 6] * 5], [1, *range(40, 60)], [1, 3]]
SAMPLINGS = {
    "greedy": Sampling(max_tokens=60),
    "penalties": Sampling(max_tokens=60, repetition_penalty=1.3, frequency_penalty=0.4),
    "one token": Sampling(max_tokens=60, logit_bias=((7, 100.0),)),
    "drawn": Sampling(max_tokens=60, temperature=0.7, top_k=8, seed=4),
    "short": Sampling(max_tokens=5),
    "logprobs": Sampling(max_tokens=40, logprobs=2),
}


@pytest.fixture(scope="module", params=["fp32", "int4", "int8"])
def graph(request, llama_graph, tmp_path_factory):
    if request.param == "fp32":
        return llama_graph.path
    target = tmp_path_factory.mktemp(request.param) / "model.onnx"
    bits = int(request.param[-1])
    quantize_decoder(llama_graph.path, target, bits=bits, method="rtn", spec=llama_graph.spec)
    return target


def answers(graph, spec, sampling, *, lookup, batch_size=1):
    """Tokens, log-probabilities, and of each answer what was guessed and right; and how many runs it took."""
    decoder = Decoder(graph, spec, threads=1, lookup=lookup)
    runs = []
    for name in ("run", "run_ahead"):
        method = getattr(decoder, name)
        setattr(decoder, name, lambda *given, _method=method: runs.append(1) or _method(*given))
    made = [decoder.answer(prompt, sampling) for prompt in PROMPTS]
    pieces = list(answer_together(decoder, made, batch_size=batch_size))
    decoder.close()
    logprobs = [one.logprob for _, piece in pieces for one in piece.logprobs]
    return [one.token_ids for one in made], logprobs, [one.lookup for one in made], len(runs)


@pytest.mark.parametrize("name", SAMPLINGS)
def test_answers_guessed_ahead_are_the_same_in_fewer_runs(graph, llama_graph, name):
    plain, logprobs, none, many = answers(graph, llama_graph.spec, SAMPLINGS[name], lookup=False)
    ahead, same, lookups, few = answers(graph, llama_graph.spec, SAMPLINGS[name], lookup=True)
    assert ahead == plain
    assert same == pytest.approx(logprobs, abs=1e-4)
    assert none == [None] * len(PROMPTS)
    assert few <= many
    assert all(0 <= one.right <= one.guessed for one in lookups)
    assert few == many - sum(one.right for one in lookups)
    if name == "one token":  # the first three of each answer, and the pieces that were guessed too short at first
        assert few < many / 3


def test_answers_in_a_batch_are_not_guessed_until_one_is_left(graph, llama_graph):
    sampling = SAMPLINGS["greedy"]
    plain, _, _, _ = answers(graph, llama_graph.spec, sampling, lookup=False, batch_size=4)
    ahead, _, _, _ = answers(graph, llama_graph.spec, sampling, lookup=True, batch_size=4)
    assert ahead == plain


def test_the_graph_gives_the_last_logits_unless_others_are_asked_for(llama_graph):
    session = open_session(llama_graph.path, provider="cpu", threads=1)
    assert LOGITS_FROM not in {one.name for one in session.get_inputs()}
    assert [one.name for one in session.get_overridable_initializers()] == [LOGITS_FROM]
    decoder = Decoder(llama_graph.path, llama_graph.spec, threads=1, lookup=True)
    ids = np.asarray([[4, 9, 11, 30, 2]], np.int64)
    _, cache = decoder.prefill([[1, 5, 6]])
    logits, _ = decoder.run_ahead(ids, cache)
    for count in range(1, 6):
        _, cache = decoder.prefill([[1, 5, 6]])
        last, cache = decoder.run(ids[:, :count], cache)
        assert last[0] == pytest.approx(logits[count - 1], abs=1e-5)
    assert logits.shape == (5, llama_graph.spec.vocabulary)
    decoder.close()


def test_a_graph_of_an_earlier_release_is_not_guessed_with(llama_graph, tmp_path):
    model = onnx.load(llama_graph.path)
    (movable,) = (value for value in model.graph.input if value.name == LOGITS_FROM)
    model.graph.input.remove(movable)
    onnx.save(model, tmp_path / "model.onnx")
    older = DecoderGraph(tmp_path / "model.onnx", llama_graph.spec, nodes=1)
    Decoder(older.path, older.spec, threads=1).close()
    with pytest.raises(InputError, match="logits behind the last token alone") as caught:
        Decoder(older.path, older.spec, threads=1, lookup=True)
    assert "open it without lookup" in str(caught.value.action)


@pytest.mark.parametrize("stop", [(), ("a",), ("the", " ")])
def test_texts_stops_and_the_scheduler_are_those_without_guesses(language_bundle, stop):
    prompts = ["once upon a time once upon a time", "a b a b a b", "the"]
    sampling = Sampling(max_tokens=40, stop=stop)
    texts = []
    for lookup in (False, True):
        with Generator.open(language_bundle.folder, threads=1, lookup=lookup) as generator:
            texts.append([_told(generator.generate(prompt, sampling)) for prompt in prompts])
            with Scheduler(generator, rows=2) as scheduler:
                handles = [scheduler.submit(generator.prompt_ids(prompt), sampling) for prompt in prompts]
                assert [_told(handle.result(seconds=60)) for handle in handles] == texts[-1]
    assert texts[0] == texts[1]


def _told(answer):
    return answer.text, answer.token_ids, answer.finish
