"""The kept tokens are those of transformers' logits processors on the same logits; the draws follow their shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetune.serve.errors import EdgetuneError, InputError
from edgetune.serve.stepwise.sampling import Sampler, Sampling, candidates, penalized

VOCABULARY = 3000


@pytest.fixture(scope="module")
def logits() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(3).normal(scale=3, size=VOCABULARY).astype(np.float32)


def _transformers(logits: Any, prompt: list[int], sampling: Sampling) -> Any:
    """The processed scores as `generate` makes them: (vocabulary,) with -inf for what is out."""
    import torch
    from transformers.generation import logits_process

    made: list[Any] = []
    if sampling.repetition_penalty != 1:
        made.append(logits_process.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    made.append(logits_process.TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        made.append(logits_process.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        made.append(logits_process.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        made.append(logits_process.MinPLogitsWarper(sampling.min_p))
    scores = torch.from_numpy(logits.copy())[None]
    for one in made:
        scores = one(torch.tensor([prompt]), scores)
    return scores[0].numpy()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(temperature=1.0, top_k=1),
        Sampling(temperature=0.9, top_k=40),
        Sampling(temperature=1.3, top_k=10_000),
        Sampling(temperature=1.0, top_p=0.9),
        Sampling(temperature=1.0, top_p=0.0001),
        Sampling(temperature=3.0, top_p=0.999),
        Sampling(temperature=1.0, min_p=0.05),
        Sampling(temperature=0.8, top_k=50, top_p=0.95, min_p=0.02),
        Sampling(temperature=0.8, top_k=50, top_p=0.95, repetition_penalty=1.3),
        Sampling(temperature=0.8, min_p=0.2, repetition_penalty=0.7),
    ],
)
def test_the_kept_tokens_are_those_of_transformers(logits: Any, sampling: Sampling) -> None:
    prompt = [int(token) for token in np.argsort(-logits)[:30:3]]
    expected = _transformers(logits, prompt, sampling)
    scores = logits
    if sampling.repetition_penalty != 1:
        seen = np.zeros(VOCABULARY, dtype=bool)
        seen[prompt] = True
        scores = penalized(logits, seen, sampling.repetition_penalty)
    ids, kept = candidates(scores, sampling)
    assert sorted(ids) == list(np.flatnonzero(np.isfinite(expected)))
    wanted = expected[ids].astype(np.float64)
    np.testing.assert_allclose(kept - kept.max(), wanted - wanted.max(), atol=1e-5)


def test_ties_with_the_last_of_the_top_stay() -> None:
    ids, _ = candidates(np.array([1, 3, 2, 2, 0], dtype=np.float32), Sampling(temperature=1, top_k=2))
    assert list(ids) == [1, 2, 3]


def test_a_draw_follows_the_shares() -> None:
    shares = np.array([0.5, 0.3, 0.15, 0.05])
    sampler = Sampler(Sampling(temperature=1.0, seed=1), [], 4)
    drawn = [sampler.choose(np.log(shares).astype(np.float32))[0] for _ in range(4000)]
    counted = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(counted, shares, atol=0.03)  # about four standard deviations


def test_a_seed_repeats_and_another_differs(logits: Any) -> None:
    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(temperature=2.0, seed=seed), [], VOCABULARY)
        return [sampler.choose(logits)[0] for _ in range(20)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)
    assert draw(-1) == draw(2**64 - 1)


def test_a_tiny_temperature_takes_the_likeliest(logits: Any) -> None:
    sampler = Sampler(Sampling(temperature=1e-30, seed=1), [], VOCABULARY)
    assert {sampler.choose(logits)[0] for _ in range(5)} == {int(logits.argmax())}


def test_the_penalty_holds_for_greedy_answers_and_for_their_own_tokens() -> None:
    sampler = Sampler(Sampling(repetition_penalty=2.0), [0], 4)
    logits = np.array([4.0, 3.0, 2.5, -1.0], dtype=np.float32)
    assert [sampler.choose(logits)[0] for _ in range(3)] == [1, 2, 0]
    assert logits[0] == 4.0, "what the graph gave must not be changed"


FINITE = st.floats(-9, 9, width=32) | st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    logits=arrays(np.float32, st.integers(1, 12), elements=FINITE | st.just(float("-inf"))),
    sampling=st.builds(
        Sampling,
        temperature=st.floats(0, 2),
        top_k=st.integers(0, 20),
        top_p=st.floats(0, 1, exclude_min=True),
        min_p=st.floats(0, 1),
        repetition_penalty=st.floats(0, allow_infinity=False, exclude_min=True),
        seed=st.integers(0, 9),
        logprobs=st.sampled_from([None, 0, 3]),
    ),
)
@example(  # the smallest penalties are 0 as float32: the shares of a draw were no numbers
    logits=np.zeros(3, np.float32), sampling=Sampling(temperature=1.0, top_p=0.5, repetition_penalty=5e-324, seed=0)
)
def test_whatever_may_be_asked_for_gives_a_token_that_is_not_forbidden(logits: Any, sampling: Sampling) -> None:
    assume(np.isfinite(logits.max()))
    sampler = Sampler(sampling, range(len(logits)), len(logits))
    for _ in range(2):
        token, told = sampler.choose(logits)
        assert np.isfinite(logits[token])
        assert (told is None) == (sampling.logprobs is None)
        assert told is None or np.isfinite(told.logprob)


def test_log_probabilities_are_the_graphs_own() -> None:
    shares = np.array([0.15, 0.5, 0.25, 0.1])
    sampler = Sampler(Sampling(temperature=0.5, top_k=1, repetition_penalty=3.0, logprobs=3), [1], 4)
    token, logprob = sampler.choose(np.log(shares).astype(np.float32))
    assert logprob is not None
    assert logprob.token_id == token
    np.testing.assert_allclose(np.exp(logprob.logprob), shares[token], rtol=1e-6)
    assert [place for place, _ in logprob.top] == [1, 2, 0]
    np.testing.assert_allclose(np.exp([value for _, value in logprob.top]), [0.5, 0.25, 0.15], rtol=1e-6)
    assert Sampler(Sampling(logprobs=0), [], 4).choose(np.log(shares).astype(np.float32))[1].top == ()
    assert len(Sampler(Sampling(logprobs=9), [], 4).choose(np.log(shares).astype(np.float32))[1].top) == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_p=0.5)])
def test_logits_that_are_no_numbers_are_an_error(logits: Any, bad: float, sampling: Sampling) -> None:
    damaged = logits.copy()
    damaged[17] = bad
    with pytest.raises(EdgetuneError, match="no numbers"):
        Sampler(sampling, [], VOCABULARY).choose(damaged)


def test_a_forbidden_token_is_no_fault() -> None:
    logits = np.array([-np.inf, 1.0, 2.0], dtype=np.float32)
    drawn = {Sampler(Sampling(temperature=5.0, seed=seed), [], 3).choose(logits)[0] for seed in range(40)}
    assert drawn == {1, 2}
    with pytest.raises(EdgetuneError, match="no numbers"):
        Sampler(Sampling(), [], 3).choose(np.full(3, -np.inf, dtype=np.float32))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": -1}, "min_p is -1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": True}, "max_tokens is True"),
        ({"stop": "end"}, "stop is 'end'"),
        ({"stop": ("",)}, "stop is"),
        ({"seed": 1.0}, "seed is 1.0"),
        ({"logprobs": 101}, "logprobs is 101"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Sampling(**settings)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Sampling(temperature=-1, top_p=2, max_tokens=0)
    assert all(name in caught.value.found for name in ("temperature", "top_p", "max_tokens"))


def _answer(sampling: Sampling, logits: list[float], tokens: int) -> list[int]:
    sampler = Sampler(sampling, [0], len(logits))
    return [sampler.choose(np.array(logits, dtype=np.float32))[0] for _ in range(tokens)]


@pytest.mark.parametrize(
    ("sampling", "answer"),
    [
        # Three tokens whose logits lie 1 apart, greedily: each penalty takes its part off once a token has come.
        (Sampling(), [0, 0, 0, 0, 0, 0]),
        (Sampling(presence_penalty=1.5), [0, 1, 0, 0, 0, 0]),
        (Sampling(frequency_penalty=0.75), [0, 0, 1, 0, 1, 2]),
        (Sampling(presence_penalty=-2), [0, 0, 0, 0, 0, 0]),
        (Sampling(logit_bias=((2, 2.5),)), [2, 2, 2, 2, 2, 2]),
        (Sampling(logit_bias=((0, -100.0), (1, -100.0)), frequency_penalty=2), [2, 2, 2, 2, 2, 2]),
    ],
)
def test_penalties_and_biases_by_hand(sampling: Sampling, answer: list[int]) -> None:
    assert _answer(sampling, [2.0, 1.0, 0.0], 6) == answer


def test_a_penalty_leaves_the_prompt_alone_and_the_logits_as_they_were() -> None:
    logits = np.array([2.0, 1.0], dtype=np.float32)
    token, logprob = Sampler(Sampling(presence_penalty=2, logprobs=0), [0, 0], 2).choose(logits)
    assert token == 0
    assert logits.tolist() == [2.0, 1.0]
    assert logprob is not None
    assert logprob.logprob == pytest.approx(-np.log(1 + np.exp(-1)))


@pytest.mark.parametrize(
    "values",
    [
        {"presence_penalty": 2.1}, {"frequency_penalty": -2.1}, {"presence_penalty": float("nan")},
        {"logit_bias": ((-1, 1.0),)}, {"logit_bias": ((1, 101.0),)}, {"logit_bias": [(1, 1.0)]},
        {"logit_bias": ((1,),)},
    ],
)  # fmt: skip
def test_penalties_and_biases_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        Sampling(**values)
