"""What cannot be answered is refused in OpenAI's words, and a server that refused goes on answering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from edgetune.serve.http.keys import Keys

GOLDEN = Path(__file__).parents[3] / "golden" / "bundle-v1"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = [{"role": "user", "content": "where is my card?"}]
KEY = "secret-key-of-this-test-0123456789"


def refused(answer: Any, status: int = 400) -> dict[str, Any]:
    """The error object of an answer, of the form that all errors have."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["message"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The body is empty"),
        (b'{"messages": [', "no JSON"),
        (b'{"prompt": "a", "messages": [], "temperature": NaN}', "no JSON"),
        (b'{"prompt": "a", "temperature": 1e999}', ""),
        (b"\xff\xfe", "no JSON"),
        (b"[1, 2]", "no object"),
        (b"3", "no object"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_a_body_that_is_no_question(server, path, body, words):
    error = refused(server.post(path, body))
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("temperature", -0.1), ("temperature", 2.1), ("temperature", "hot"), ("top_p", 0), ("top_p", 1.5),
        ("max_tokens", 0), ("max_tokens", -3), ("max_tokens", 2.5), ("max_tokens", 10**30), ("seed", "x"),
        ("seed", 2**64), ("stop", ""), ("stop", ["a"] * 17), ("stop", ["a", ""]), ("stop", 7), ("stop", "x" * 300),
        ("stream", "yes"), ("min_p", 2), ("top_k", -2), ("repetition_penalty", 0), ("model", 3), ("logprobs", "all"),
        ("stream_options", {"include_usage": True}), ("n", 0), ("n", 129), ("presence_penalty", 2.5),
        ("frequency_penalty", -3), ("logit_bias", {"5": 101}), ("logit_bias", {"five": 1}), ("logit_bias", {"-5": 1}),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_named(server, member, value):
    for path, question in ((CHAT, {"messages": USER}), (TEXT, {"prompt": "card"})):
        error = refused(server.post(path, {**question, member: value}))
        assert (error["param"], error["type"]) == (member, "invalid_request_error")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("tool_choice", "required"), ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("modalities", ["text", "audio"]), ("audio", {"voice": "x"}),
        ("functions", [{"name": "f"}]), ("reasoning_effort", "high"), ("prediction", {"content": "x"}),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(server, member, value):
    error = refused(server.post(CHAT, {"messages": USER, member: value}))
    assert error["param"] == member
    assert error["code"] in ("unsupported_parameter", "unsupported_value")
    assert f"does not support {member}" in error["message"]


@pytest.mark.parametrize(("member", "value"), [("best_of", 3), ("suffix", "end")])
def test_what_a_text_cannot_have_is_refused_by_name(server, member, value):
    assert refused(server.post(TEXT, {"prompt": "card", member: value}))["param"] == member


def test_a_member_that_nobody_knows_is_told_with_the_likely_one(server):
    error = refused(server.post(CHAT, {"messages": USER, "max_token": 5}))
    assert (error["param"], error["code"]) == ("max_token", "unknown_parameter")
    assert "did you mean 'max_tokens'?" in error["message"]
    assert refused(server.post(TEXT, {"promt": "card"}))["param"] == "promt"


@pytest.mark.parametrize(
    ("messages", "param", "words"),
    [
        ([], "messages", "length"),
        ("hello", "messages", "array"),
        ([{"role": "system", "content": "be kind"}], "messages", "None of the messages is the user's"),
        ([{"role": "assistant", "content": "hello"}], "messages", "None of the messages is the user's"),
        ([{"content": "hello"}], "messages[0]", "has the role None"),
        ([*USER, {"role": "king", "content": "hello"}], "messages[1]", "has the role 'king'"),
        ([{"role": "user"}], "messages[0]", "has no content"),
        ([{"role": "user", "content": None}], "messages[0]", "has no content"),
        ([{"role": "user", "content": 5}], "messages[0]", "of type int"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
         "messages[0].content[0]", "'image_url'"),
        (["hello"], "messages", "object"),
    ],
)  # fmt: skip
def test_messages_that_are_no_chat(server, messages, param, words):
    error = refused(server.post(CHAT, {"messages": messages}))
    assert error["param"] == param
    assert words in error["message"]


def test_a_template_that_refuses_is_the_chats_fault(server):
    error = refused(server.post(CHAT, {"messages": [{"role": "user", "content": "refuse me"}]}))
    assert "no such chat" in error["message"]


@pytest.mark.parametrize("content", ["", " \n", [{"type": "text", "text": ""}]])
def test_a_chat_in_which_the_user_says_nothing(server, content):
    error = refused(
        server.post(CHAT, {"messages": [{"role": "system", "content": "be kind"}, {**USER[0], "content": content}]})
    )
    assert error["message"].startswith("The prompt is empty")
    assert server.post(CHAT, {"messages": [*USER, {**USER[0], "content": content}], "max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("prompt", ["", [], [[]], [""], None, 5, {}, [1, "a"], ["a", ""], [[1], []], [1.5], [True]])
def test_a_prompt_that_is_none(server, prompt):
    error = refused(server.post(TEXT, {"prompt": prompt}))
    assert error["param"] == "prompt"


@pytest.mark.parametrize("token", [-1, 100_000, 2**70])
def test_a_token_that_the_model_does_not_know(server, token):
    error = refused(server.post(TEXT, {"prompt": [5, token]}))
    assert str(token) in error["message"]
    assert "0 to " in error["message"]


def test_an_unpaired_surrogate_is_no_text(server):
    error = refused(server.post(TEXT, b'{"prompt": "\\ud800"}'))
    assert error["type"] == "invalid_request_error"


def test_a_prompt_longer_than_the_context(server):
    for path, question in (
        (TEXT, {"prompt": "card " * 300}),
        (TEXT, {"prompt": [5] * 256}),
        (CHAT, {"messages": [{"role": "user", "content": "card " * 300}]}),
    ):
        error = refused(server.post(path, question))
        assert error["code"] == "context_length_exceeded"
        assert "at most 255" in error["message"]
    assert server.post(TEXT, {"prompt": [5] * 255}).json()["usage"]["total_tokens"] == 256


def test_an_answer_longer_than_the_context(server, run_server):
    error = refused(server.post(TEXT, {"prompt": [5] * 10, "max_tokens": 247}))
    assert (error["code"], "257 together" in error["message"]) == ("context_length_exceeded", True)
    assert "at most 246 tokens" in error["message"]
    assert refused(server.post(CHAT, {"messages": USER, "max_completion_tokens": 2**31 - 1}))["code"] == error["code"]
    small = run_server(max_answer_tokens=20)
    error = refused(small.post(TEXT, {"prompt": "card", "max_tokens": 21}))
    assert (error["param"], "at most 20" in error["message"]) == ("max_tokens", True)
    usage = small.post(CHAT, {"messages": USER, "temperature": 0}).json()["usage"]
    assert usage["completion_tokens"] == 20  # greedy: a drawn answer may end before


def test_a_model_that_is_not_there(server):
    error = refused(server.post(CHAT, {"messages": USER, "model": "gpt-4o"}), 404)
    assert (error["code"], "There is no model 'gpt-4o'" in error["message"]) == ("model_not_found", True)
    assert refused(server.get("/v1/models/gpt-4o"), 404)["code"] == "model_not_found"
    assert refused(server.get("/v1/chat/nothing"), 404)["code"] == "unknown_url"
    assert refused(server.get(CHAT), 405)["type"] == "invalid_request_error"


def test_a_body_of_another_kind_or_size(run_server):
    server = run_server(max_body_bytes=2000)
    refused(server.post(CHAT, {"messages": USER}, {"content-type": "text/html"}), 415)
    refused(server.post(CHAT, {"messages": [{"role": "user", "content": "card " * 1000}]}), 413)


def test_two_kinds_of_models_side_by_side(run_server, tiny_bundle):
    server = run_server({"tiny": tiny_bundle, "other": tiny_bundle, "golden": GOLDEN})
    classified = server.post("/v1/classify", {"text": "where is my parcel", "model": "golden"})
    assert (classified.status_code, classified.json()["model"]) == (200, "golden")
    assert server.post(CHAT, {"messages": USER, "model": "tiny", "max_tokens": 2}).json()["model"] == "tiny"
    error = refused(server.post(CHAT, {"messages": USER, "model": "golden"}))
    assert (error["param"], error["code"]) == ("model", "model_not_supported")
    assert "classifies text" in error["message"]
    assert "/v1/classify" in error["message"]
    error = refused(server.post(CHAT, {"messages": USER}))
    assert (error["param"], "other, tiny" in error["message"]) == ("model", True)
    infer = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["card"]}]}
    for path, body in (("/v1/classify", {"text": "card", "model": "tiny"}), ("/v2/models/tiny/infer", infer)):
        answer = server.post(path, body)
        assert answer.status_code == 400
        assert "generates text" in answer.json()["error"]
        assert CHAT in answer.json()["error"]
    assert [model["id"] for model in server.get("/v1/models").json()["data"]] == ["other", "tiny"]
    assert refused(server.get("/v1/models/golden"), 404)["code"] == "model_not_found"
    facts = server.get("/v2/models/tiny").json()
    assert (facts["inputs"], facts["outputs"], facts["parameters"]["task"]) == ([], [], "text-generation")
    assert server.get("/v2/health/ready").json()["models"]["tiny"]["state"] == "READY"
    page = server.get("/").text
    assert "256 tokens" in page
    assert page.count("curl ") == 2


def test_a_server_without_a_model_that_generates(run_server):
    server = run_server({"golden": GOLDEN})
    error = refused(server.post(CHAT, {"messages": USER}), 404)
    assert error["code"] == "model_not_found"
    assert server.get("/v1/models").json() == {"object": "list", "data": []}


def test_keys_are_asked_for_in_openais_words(run_server, tmp_path):
    (tmp_path / "keys").write_text(KEY + "\n")
    server = run_server(keys=Keys.open(tmp_path / "keys"), key=KEY)
    error = refused(server.get("/v1/models"), 401)
    assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")
    with server.client() as client:
        assert [model.id for model in client.models.list().data] == ["tiny"]
    server.key = "wrong"
    with server.client() as client, pytest.raises(openai.AuthenticationError, match="not known"):
        client.models.list()


def test_the_client_reads_what_was_wrong(server):
    with server.client() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="tiny", messages=USER, temperature=3)
        assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="tiny", prompt="card " * 300, stream=True)
        assert caught.value.code == "context_length_exceeded"
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="other", prompt="card")


@pytest.mark.parametrize("stream", [False, True])
def test_logits_that_are_no_numbers_are_the_servers_fault(run_server, monkeypatch, stream):
    server = run_server()
    decoder = server.scheduler.generator.decoder
    run = decoder.run
    monkeypatch.setattr(decoder, "run", lambda *given: (np.full_like(run(*given)[0], np.nan), run(*given)[1]))
    error = refused(server.post(CHAT, {"messages": USER, "stream": stream}), 500)
    assert (error["type"], "no numbers" in error["message"]) == ("server_error", True)
    monkeypatch.undo()
    assert server.post(CHAT, {"messages": USER, "max_tokens": 2}).status_code == 200


def test_a_fault_in_the_midst_of_a_stream_is_its_last_event(run_server, monkeypatch, eventually):
    server = run_server()
    decoder = server.scheduler.generator.decoder
    run, runs = decoder.run, []

    def spoiled(*given: Any) -> Any:
        runs.append(given)
        logits, cache = run(*given)
        return (np.full_like(logits, np.nan) if len(runs) > 12 else logits), cache

    monkeypatch.setattr(decoder, "run", spoiled)
    told = []
    with server.client() as client:
        events = client.completions.create(model="tiny", prompt="card", max_tokens=100, temperature=0, stream=True)
        with pytest.raises(openai.APIError, match="no numbers"):
            told.extend(events)
    assert len(told) > 3
    eventually(lambda: server.scheduler.running == 0)
    eventually(lambda: server.limits.running == 0)
    counted = 'edgetune_requests_total{model="tiny",route="completions",status="500"}'
    eventually(lambda: server.metric(counted) == 1)
