"""The real client of OpenAI's API against a running server: what it reads is what the model says by itself."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import openai
import pytest

from edgetune.serve.stepwise.sampling import Sampling

CHAT = [
    {"role": "system", "content": "answer the phone"},
    {"role": "user", "content": "where is my card?"},
]
PROMPT = "the card has not"


@pytest.fixture(scope="module")
def client(server: Any) -> openai.OpenAI:
    with server.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def alone(generator: Any) -> Any:
    """`alone(prompt, tokens=24)`: the greedy answer without a server, with its tokens' log-probabilities."""
    return lambda prompt, tokens=24: generator.generate(prompt, Sampling(max_tokens=tokens, logprobs=3))


def chat(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny", "messages": CHAT, "temperature": 0, **wishes})


def complete(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.completions.create(**{"model": "tiny", "prompt": PROMPT, "temperature": 0, **wishes})


def test_a_chat_is_answered_as_the_model_does_alone(client, alone, generator):
    answer = chat(client, max_completion_tokens=24)
    expected = alone(CHAT)
    assert expected.finish == "length"
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert (choice.message.role, choice.message.content) == ("assistant", expected.text)
    assert answer.object == "chat.completion"
    assert answer.model == "tiny"
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint.startswith("fp_")
    assert answer.usage.prompt_tokens == len(generator.chat_ids(CHAT))
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24


def test_a_chat_comes_in_pieces(client, alone):
    events = list(chat(client, max_tokens=24, stream=True, stream_options={"include_usage": True}))
    *told, counts = events
    assert {event.object for event in events} == {"chat.completion.chunk"}
    assert len({(event.id, event.model, event.created, event.system_fingerprint) for event in events}) == 1
    assert told[0].choices[0].delta.role == "assistant"
    assert "".join(event.choices[0].delta.content or "" for event in told) == alone(CHAT).text
    assert [event.choices[0].finish_reason for event in told] == [None] * (len(told) - 1) + ["length"]
    assert len(told) > 10
    assert all(event.usage is None for event in told)
    assert counts.choices == []
    assert (counts.usage.completion_tokens, counts.usage.total_tokens - counts.usage.prompt_tokens) == (24, 24)


def test_without_being_asked_a_stream_tells_no_counts(client):
    events = list(chat(client, max_tokens=3, stream=True))
    assert all(event.usage is None and len(event.choices) == 1 for event in events)


def test_a_text_is_continued(client, alone, generator):
    answer = complete(client, max_tokens=20)
    assert (answer.object, answer.id[:5], answer.choices[0].finish_reason) == ("text_completion", "cmpl-", "length")
    assert answer.choices[0].text == alone(PROMPT, 20).text
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(generator.encode(PROMPT)), 20)
    pieces = [event.choices[0].text for event in complete(client, max_tokens=20, stream=True)]
    assert ("".join(pieces), len(pieces) > 8) == (answer.choices[0].text, True)


def test_a_completion_has_sixteen_tokens_where_nobody_says_more(client):
    assert complete(client).usage.completion_tokens == 16


def test_a_prompt_may_be_its_tokens(client, generator):
    text = complete(client, max_tokens=12).choices[0].text
    ids = generator.encode(PROMPT)
    assert complete(client, prompt=ids, max_tokens=12).choices[0].text == text
    assert complete(client, prompt=[ids], max_tokens=12).choices[0].text == text
    assert complete(client, prompt=[PROMPT], max_tokens=12).choices[0].text == text


def test_a_chat_goes_on_until_it_ends_or_the_context_does(client, alone):
    answer, expected = chat(client), alone(CHAT, 10_000)
    assert answer.choices[0].message.content == expected.text
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == (
        expected.finish,
        len(expected.token_ids),
    )
    crowded = chat(client, messages=[{"role": "user", "content": "where is the card? " * 16}])
    assert crowded.usage.prompt_tokens > 200
    assert (crowded.choices[0].finish_reason, crowded.usage.total_tokens) == ("length", 256)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_a_chat_are_those_of_the_graph(client, alone, stream):
    wishes = {"max_tokens": 12, "logprobs": True, "top_logprobs": 3}
    if stream:
        events = [event.choices[0] for event in chat(client, stream=True, **wishes)]
        told = [one for choice in events if choice.logprobs for one in choice.logprobs.content]
    else:
        told = chat(client, **wishes).choices[0].logprobs.content
    expected = alone(CHAT, 12)
    assert [one.logprob for one in told] == pytest.approx([one.logprob for one in expected.logprobs], abs=1e-4)
    raw = b"".join(bytes(one.bytes) for one in told)
    assert raw.decode("utf-8", "replace") == expected.text
    for one in told:
        assert len(one.top_logprobs) == 3
        assert (one.top_logprobs[0].token, one.top_logprobs[0].logprob) == (one.token, one.logprob)
        assert one.top_logprobs[0].logprob >= one.top_logprobs[1].logprob >= one.top_logprobs[2].logprob


def test_logprobs_of_a_text_stand_side_by_side(client, alone):
    choice = complete(client, max_tokens=8, logprobs=2).choices[0]
    expected = alone(PROMPT, 8)
    assert choice.logprobs.token_logprobs == pytest.approx([one.logprob for one in expected.logprobs], abs=1e-4)
    assert [len(top) for top in choice.logprobs.top_logprobs] == [2] * 8
    assert len(choice.logprobs.tokens) == len(choice.logprobs.text_offset) == 8
    assert choice.logprobs.text_offset[0] == 0
    without = chat(client, max_tokens=2, logprobs=True).choices[0].logprobs.content
    assert [one.top_logprobs for one in without] == [[], []]


def test_a_seed_makes_an_answer_again(client):
    def draw(**wishes: Any) -> str:
        return str(chat(client, **{"temperature": 1.5, "max_tokens": 20, **wishes}).choices[0].message.content)

    assert draw(seed=7) == draw(seed=7)
    assert len({draw(seed=seed) for seed in range(4)}) == 4
    assert len({draw() for _ in range(4)}) == 4
    assert draw(seed=7, top_p=1e-9) == draw(seed=8, top_p=1e-9) == draw(temperature=0)


def test_other_servers_members_go_through(client):
    text = chat(client, max_tokens=10).choices[0].message.content
    for extra in ({"top_k": 1}, {"min_p": 1.0}):
        answer = chat(client, temperature=2, max_tokens=10, extra_body=extra)
        assert answer.choices[0].message.content == text
    assert chat(client, max_tokens=10, extra_body={"repetition_penalty": 5.0}).choices[0].message.content != text


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_may_span_tokens(client, alone, generator, stream):
    expected = alone(CHAT)
    texts = [generator.token_text(token) for token in expected.token_ids]
    # The end of one token and the beginning of the next, where no token alone holds it.
    stop, cut = next(
        (one[-1] + other[0], place)
        for place, (one, other) in enumerate(itertools.pairwise(texts), 1)
        if place > 4 and one and other and not any((one[-1] + other[0]) in text for text in texts)
        and "\ufffd" not in one + other and expected.text.find(one[-1] + other[0]) > 0
    )  # fmt: skip
    before = expected.text[: expected.text.find(stop)]
    if stream:
        events = [event.choices[0] for event in chat(client, max_tokens=24, stop=["never", stop], stream=True)]
        assert "".join(choice.delta.content or "" for choice in events) == before
        assert events[-1].finish_reason == "stop"
        return
    answer = chat(client, max_tokens=24, stop=stop)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (before, "stop")
    assert answer.usage.completion_tokens <= cut + 1 < 24


def test_messages_may_come_in_parts_and_by_newer_names(client):
    plain = chat(client, max_tokens=8).choices[0].message.content
    parted = [
        {"role": "developer", "content": [{"type": "text", "text": "answer "}, {"type": "text", "text": "the phone"}]},
        {"role": "user", "content": [{"type": "text", "text": "where is my card?"}]},
    ]
    assert chat(client, messages=parted, max_tokens=8).choices[0].message.content == plain


def test_what_asks_for_nothing_is_no_fault(client):
    answer = chat(
        client, max_tokens=2, n=1, presence_penalty=0, frequency_penalty=0, logit_bias={}, user="me", tools=[],
        response_format={"type": "text"}, store=False, metadata={"a": "b"}, service_tier="auto",
    )  # fmt: skip
    assert answer.usage.completion_tokens == 2


def test_the_models_are_listed(client):
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by, model.created) == ("tiny", "model", "edgetune", 1767323045)
    assert client.models.retrieve("tiny") == model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4o")
    assert (caught.value.code, caught.value.type) == ("model_not_found", "invalid_request_error")


def test_the_only_model_need_not_be_named(server):
    body = {"messages": CHAT, "max_tokens": 2}
    answer = server.post("/v1/chat/completions", body)
    assert (answer.status_code, answer.json()["model"]) == (200, "tiny")


def test_many_at_once_get_what_each_gets_alone(server, generator, in_loop):
    prompts = [f"card number {number} " + "help " * number for number in range(8)]
    expected = [
        generator.generate(prompt, Sampling(max_tokens=16 + 4 * number)).text for number, prompt in enumerate(prompts)
    ]

    async def ask() -> list[str]:
        async with server.async_client() as client:
            asked = [
                client.completions.create(model="tiny", prompt=prompt, max_tokens=16 + 4 * number, temperature=0)
                for number, prompt in enumerate(prompts)
            ]
            return [answer.choices[0].text for answer in await asyncio.gather(*asked)]

    assert in_loop(ask()) == expected


def test_the_tokens_are_counted(run_server, eventually):
    server = run_server()
    with server.client() as client:
        usage = chat(client, max_tokens=5).usage
        list(chat(client, max_tokens=7, stream=True))
    answered = 'edgetune_requests_total{model="tiny",route="chat",status="200"}'
    eventually(lambda: server.metric(answered) == 2)  # a stream is counted when its last event is on its way
    counted = 'edgetune_generation_tokens_total{kind="%s",model="tiny"}'
    assert server.metric(counted % "answer") == 12
    assert server.metric(counted % "prompt") == 2 * usage.prompt_tokens
    assert server.metric('edgetune_stage_seconds_count{model="tiny",stage="first_token"}') == 2
