"""Several answers in one request, prompts that are echoed, biases, tools and defaults, by OpenAI's own client."""

from __future__ import annotations

import json
import shutil
from typing import Any

import msgspec
import numpy as np
import pytest

from edgetune.serve.bundle import FileEntry, Manifest
from edgetune.serve.digest import file_sha256
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.sampling import Sampling

NAME = "tiny"
TEXTS = ["the card has not arrived and nobody answers on the phone", "why was my transfer refused yesterday"]
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
USER = [{"role": "user", "content": "card"}]


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    return server.client()


def test_a_list_of_prompts_is_answered_in_its_order(client: Any, generator: Generator) -> None:
    prompts = [TEXTS[0], TEXTS[1], TEXTS[0][:10]]
    answer = client.completions.create(model=NAME, prompt=prompts, max_tokens=6, temperature=0)
    expected = [generator.generate(prompt, Sampling(max_tokens=6)) for prompt in prompts]
    assert [(choice.index, choice.text) for choice in answer.choices] == [
        (number, one.text) for number, one in enumerate(expected)
    ]
    assert answer.usage.prompt_tokens == sum(one.prompt_tokens for one in expected)
    assert answer.usage.completion_tokens == sum(len(one.token_ids) for one in expected)
    ids = [generator.encode(prompt) for prompt in prompts]
    again = client.completions.create(model=NAME, prompt=ids, max_tokens=6, temperature=0)
    assert [choice.text for choice in again.choices] == [one.text for one in expected]


def test_n_answers_are_draws_of_their_own_and_the_prompt_counts_once(client: Any, generator: Generator) -> None:
    answer = client.completions.create(model=NAME, prompt=TEXTS[0], max_tokens=8, temperature=1, seed=5, n=3)
    expected = [
        generator.generate(TEXTS[0], Sampling(max_tokens=8, temperature=1.0, seed=seed)).text for seed in (5, 6, 7)
    ]
    assert [choice.text for choice in answer.choices] == expected
    assert len(set(expected)) == 3
    assert answer.usage.prompt_tokens == len(generator.encode(TEXTS[0]))
    chat = client.chat.completions.create(model=NAME, messages=USER, max_tokens=3, n=2)
    assert [choice.index for choice in chat.choices] == [0, 1]


def test_several_answers_are_streamed_side_by_side(client: Any) -> None:
    request: dict[str, Any] = {"model": NAME, "prompt": TEXTS[:2], "max_tokens": 6, "temperature": 0}
    whole = client.completions.create(**request)
    texts, ends, usage = ["", ""], [None, None], None
    for event in client.completions.create(**request, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        for choice in event.choices:
            texts[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    sizes = [(one.prompt_tokens, one.completion_tokens) for one in (usage, whole.usage)]
    assert sizes[0] == sizes[1]


def test_more_prompts_than_the_queue_takes_are_answered(client: Any) -> None:
    prompts = [f"card {number}" for number in range(100)]
    answer = client.completions.create(model=NAME, prompt=prompts, max_tokens=1, temperature=0)
    assert [choice.index for choice in answer.choices] == list(range(100))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompt": ["a"] * 65, "n": 2}, "There are 65 prompts, each with 2 answers"),
        ({"prompt": ["a", ""]}, "The prompt is empty"),
        ({"prompt": ["a", 5]}, "One of the prompts is no prompt"),
        ({"prompt": [[5], ["a"]]}, "holds what is no token"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused(server: Any, body: dict[str, Any], words: str) -> None:
    reply = server.post("/v1/completions", body)
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]


def test_an_echo_has_the_log_probabilities_of_the_prompt(client: Any, generator: Generator) -> None:
    """What evaluation harnesses ask for: how likely each token of a text is behind those before it."""
    request: dict[str, Any] = {"model": NAME, "prompt": TEXTS[0], "max_tokens": 2, "temperature": 0, "echo": True}
    answer = client.completions.create(**request, logprobs=2)
    (choice,) = answer.choices
    ids = generator.encode(TEXTS[0])
    told = generator.generate(TEXTS[0], Sampling(max_tokens=2, logprobs=2))
    assert choice.text == TEXTS[0] + told.text
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.top_logprobs[0] is None
    expected = []
    for place in range(1, len(ids)):
        logits = generator.decoder.prefill([ids[:place]])[0][0].astype("float64")
        largest = logits.max()
        expected.append(float(logits[ids[place]] - largest - log_sum(logits - largest)))
    assert choice.logprobs.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-4)
    assert choice.logprobs.token_logprobs[len(ids) :] == pytest.approx([one.logprob for one in told.logprobs], abs=1e-4)
    assert len(choice.logprobs.tokens) == len(choice.logprobs.text_offset) == len(ids) + 2
    without = client.completions.create(**request)
    assert (without.choices[0].text, without.choices[0].logprobs) == (choice.text, None)
    events = list(client.completions.create(**request, logprobs=2, stream=True))
    assert "".join(event.choices[0].text for event in events) == choice.text
    streamed = [value for event in events for value in event.choices[0].logprobs.token_logprobs]
    assert streamed[1:] == pytest.approx(choice.logprobs.token_logprobs[1:], abs=1e-4)


def log_sum(shifted: Any) -> float:
    return float(np.log(np.exp(shifted).sum()))


def test_a_bias_forbids_and_forces_tokens(client: Any, generator: Generator) -> None:
    first = generator.generate(TEXTS[0], Sampling(max_tokens=1)).token_ids[0]
    forced = client.completions.create(
        model=NAME, prompt=TEXTS[0], max_tokens=3, temperature=0, logit_bias={"70": 100}, logprobs=0
    )
    assert forced.choices[0].logprobs.tokens == [generator.codec.decode([70])] * 3
    other = client.completions.create(
        model=NAME, prompt=TEXTS[0], max_tokens=1, temperature=0, logit_bias={str(first): -100}
    )
    assert other.choices[0].text != generator.codec.decode([first])


def test_a_bias_on_a_token_that_is_not_there_is_refused(server: Any) -> None:
    reply = server.post("/v1/completions", {"prompt": "card", "logit_bias": {"99999": 1}})
    assert reply.status_code == 400
    assert "token ids that the graph does not know: [99999]" in reply.json()["error"]["message"]


def test_tools_are_refused_where_the_template_tells_of_none(server: Any) -> None:
    reply = server.post("/v1/chat/completions", {"messages": USER, "tools": [TOOL]})
    assert reply.status_code == 400
    assert "tells of no tools" in reply.json()["error"]["message"]
    asked = {"messages": USER, "tools": [TOOL], "tool_choice": "none", "max_tokens": 1}
    assert server.post("/v1/chat/completions", asked).status_code == 200


@pytest.mark.parametrize(
    "tool", [{"name": "find"}, {"type": "function"}, {"type": "search", "function": {"name": "f"}}]
)
def test_what_is_no_tool_is_refused(server: Any, tool: dict[str, Any]) -> None:
    reply = server.post("/v1/chat/completions", {"messages": USER, "tools": [tool]})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "tools")


def test_variables_reach_the_template_and_its_own_values_do_not_change(server: Any) -> None:
    assert server.post("/v1/chat/completions", {"messages": USER, "max_tokens": 1, "chat_template_kwargs": {"x": 1}})
    reply = server.post("/v1/chat/completions", {"messages": USER, "chat_template_kwargs": {"messages": []}})
    assert reply.status_code == 400
    assert "name 'messages', which the server sets" in reply.json()["error"]["message"]


CALLING = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}{{ message['content'] }}"
    "{% for call in message.tool_calls or [] %}{% for name, value in call.function.arguments.items() %}"
    "{{ call.function.name }} {{ name }}={{ value }}{% endfor %}{% endfor %}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@pytest.fixture(scope="module")
def calling(tiny_bundle: Any, run_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server whose model's template knows tools, and whose authors draw at a temperature of 0.7."""
    folder = tmp_path_factory.mktemp("calling") / NAME
    shutil.copytree(tiny_bundle, folder)
    (folder / "chat_template.jinja").write_text(CALLING, encoding="utf-8")
    settings = {"do_sample": True, "temperature": 0.7, "top_k": 3, "top_p": 0, "repetition_penalty": 1.1}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    path = folder / "manifest.json"
    manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    names = sorted(file.name for file in folder.iterdir() if file != path)
    files = {name: FileEntry((folder / name).stat().st_size, file_sha256(folder / name)) for name in names}
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, files=files)))
    return run_server({NAME: folder})


def test_tools_and_calls_are_rendered_as_in_training(calling: Any) -> None:
    """The arguments come as JSON text, and the template goes through them."""
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": "é", "n": 2}'}}
    messages = [*USER, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "x"}]
    usage = calling.client().chat.completions.create(model=NAME, messages=messages, tools=[TOOL], max_tokens=1).usage
    generator = calling.scheduler.generator
    text = f"<s>{json.dumps([TOOL])}<|user|>card</s><|assistant|>find q=éfind n=2</s><|tool|>x</s><|assistant|>"
    assert usage.prompt_tokens == len(generator.codec.encode(text, special=False))
    broken = {"messages": [*USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}
    reply = calling.post("/v1/chat/completions", broken)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages[1]")


@pytest.mark.parametrize("stream", [False, True])
def test_calls_are_parsed_from_what_the_model_writes(
    calling: Any, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """The model's text is put in its mouth: what follows is the server's own."""
    from edgetune.serve.stepwise.answer import Answer

    said = 'Let me look.\n{"name": "find", "arguments": {"q": "é"}}\n{"name": "find", "arguments": {}}'
    ids = [*calling.scheduler.generator.codec.encode(said, special=False), 2]
    take = Answer.take

    def told(self: Answer, logits: Any) -> Any:
        forced = logits * 0 - 50
        forced[ids[min(len(self.token_ids), len(ids) - 1)]] = 50
        return take(self, forced)

    monkeypatch.setattr(Answer, "take", told)
    request = {"model": NAME, "messages": USER, "tools": [TOOL], "max_tokens": 120}
    calls = [("find", '{"q": "é"}'), ("find", "{}")]
    if not stream:
        (choice,) = calling.client().chat.completions.create(**request).choices
        assert (choice.message.content, choice.finish_reason) == ("Let me look.", "tool_calls")
        made = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]
        one = calling.client().chat.completions.create(**request, parallel_tool_calls=False).choices[0]
        assert len(one.message.tool_calls) == 1
    else:
        deltas = [event.choices[0] for event in calling.client().chat.completions.create(**request, stream=True)]
        assert "".join(one.delta.content or "" for one in deltas) == "Let me look."
        assert deltas[-1].finish_reason == "tool_calls"
        parts = [call for one in deltas for call in one.delta.tool_calls or []]
        assert [call.index for call in parts] == [0, 1]
        made = [(call.function.name, call.function.arguments) for call in parts]
    assert made == calls
    plain = calling.client().chat.completions.create(**{**request, "tools": []})
    assert plain.choices[0].message.content == said
    assert plain.choices[0].message.tool_calls is None


def test_the_authors_defaults_are_taken_and_told(calling: Any) -> None:
    (model,) = calling.get("/v1/models").json()["data"]
    assert model["sampling_defaults"] == {"temperature": 0.7, "top_k": 3, "repetition_penalty": 1.1}
    generator = calling.scheduler.generator
    request = {"model": NAME, "prompt": TEXTS[0], "max_tokens": 12, "seed": 3}
    answer = calling.client().completions.create(**request).choices[0].text
    drawn = Sampling(max_tokens=12, seed=3, temperature=0.7, top_k=3, repetition_penalty=1.1)
    assert answer == generator.generate(TEXTS[0], drawn).text
    greedy = calling.client().completions.create(**request, temperature=0).choices[0].text
    assert greedy == generator.generate(TEXTS[0], Sampling(max_tokens=12, repetition_penalty=1.1)).text


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_format_is_followed(client: Any, stream: bool) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    request: dict[str, Any] = {"model": NAME, "messages": USER, "max_tokens": 100, "response_format": form, "seed": 1}
    if stream:
        deltas = [
            event.choices[0].delta.content or "" for event in client.chat.completions.create(**request, stream=True)
        ]
        text = "".join(deltas)
    else:
        text = client.chat.completions.create(**request).choices[0].message.content
    assert isinstance(json.loads(text)["ok"], bool)


@pytest.mark.parametrize(
    "form", [{"type": "grammar"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}}, {}]
)
def test_a_response_format_that_is_none_is_refused(server: Any, form: dict[str, Any]) -> None:
    reply = server.post("/v1/chat/completions", {"messages": USER, "response_format": form or {"type": None}})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "response_format")


def test_an_echo_counts_the_token_that_ends_the_answer(client: Any, generator: Generator) -> None:
    """lm-evaluation-harness leaves out the last of the list, the one token that it asks for: here it is the end."""
    end = generator.decoder.spec.eos_ids[0]
    request: dict[str, Any] = {"model": NAME, "prompt": TEXTS[0], "max_tokens": 1, "temperature": 0, "echo": True}
    answer = client.completions.create(**request, logprobs=1, logit_bias={str(end): 100}).choices[0]
    assert answer.finish_reason == "stop"
    prompt = generator.codec.encode(TEXTS[0])
    assert len(answer.logprobs.token_logprobs) == len(prompt) + 1
