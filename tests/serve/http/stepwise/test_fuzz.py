"""Any value that a member of a body may have, its extremes above all: an answer or a refusal, never a fault of ours."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

MOST_TOKENS = 3
KNOWN_TOKENS = 300
LARGE = st.sampled_from([2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40])


def mostly(likely: st.SearchStrategy[Any], anything: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What may be asked for nine times of ten, so that most bodies come through to an answer."""
    return st.integers(0, 9).flatmap(lambda turn: likely if turn else anything)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": mostly(st.integers(1, MOST_TOKENS), st.just(0) | LARGE),
    "temperature": mostly(st.floats(0, 2), st.floats(-1, 3)),
    "top_p": mostly(st.floats(0, 1, exclude_min=True), st.floats(-1, 2)),
    "top_k": mostly(st.integers(-1, 400), LARGE),
    "min_p": mostly(st.floats(0, 1), st.floats(-1, 2)),
    "repetition_penalty": mostly(st.floats(0, 10, exclude_min=True), st.floats(-1, 20)),
    "seed": mostly(st.integers(-(2**63), 2**63 - 1), LARGE),
    "stop": mostly(TEXT | st.lists(TEXT, max_size=3), st.just("")),
    "stream": st.booleans(),
}
TOKENS = st.lists(mostly(st.integers(0, KNOWN_TOKENS), st.integers(-2, 400) | LARGE), min_size=1, max_size=4)
PROMPTS = mostly(TEXT | TOKENS, st.just("") | st.just([]))
ROLES = st.sampled_from(["system", "user", "assistant"])
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXT}), max_size=2).flatmap(
    lambda turns: mostly(TEXT.map(lambda text: [*turns, {"role": "user", "content": text}]), st.just(turns))
)
completions = st.fixed_dictionaries({"prompt": PROMPTS}, optional={**MEMBERS, "logprobs": st.integers(0, 20)})
chats = st.fixed_dictionaries({"messages": MESSAGES}, optional={**MEMBERS, "logprobs": st.booleans()})
asking = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def client(run_server):
    server = run_server(max_answer_tokens=MOST_TOKENS)
    with httpx.Client(base_url=server.url, verify=False, timeout=60) as client:
        yield client


def answered(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert list(answer.json()) == ["error"]
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert "error" not in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        assert 0 <= answer.json()["usage"]["completion_tokens"] <= MOST_TOKENS


@given(completions)
@example({"prompt": "a", "repetition_penalty": 5e-324, "top_p": 0.5})
@asking
def test_any_completion_is_written_or_refused(client, body):
    answered(client.post("/v1/completions", json=body))


@given(chats)
@example({"messages": [{"role": "user", "content": "a"}], "repetition_penalty": 5e-324, "min_p": 0.5})
@asking
def test_any_chat_is_answered_or_refused(client, body):
    answered(client.post("/v1/chat/completions", json=body))
