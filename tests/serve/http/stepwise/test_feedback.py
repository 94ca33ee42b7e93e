"""What is kept of generated answers, whole and streamed, and the choice between two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from edgetune.feedback.rows import rows_of
from edgetune.serve.feedback.reading import read_feedback

NAME = "tiny"
USER = [{"role": "user", "content": "card"}]


def test_generated_answers_and_what_is_said_of_them(run_server: Any, tmp_path: Path) -> None:
    server = run_server(feedback=tmp_path)
    drawn = {"model": NAME, "messages": USER, "n": 2, "temperature": 1, "seed": 3, "max_tokens": 8}
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        whole = client.post("/v1/chat/completions", json=drawn)
        texts = [choice["message"]["content"] for choice in whole.json()["choices"]]
        streamed = client.post("/v1/chat/completions", json={**drawn, "stream": True})
        prompts = client.post(
            "/v1/completions", json={"model": NAME, "prompt": ["a", "b"], "max_tokens": 4, "temperature": 0}
        )
        names = [answer.headers["x-request-id"] for answer in (whole, streamed, prompts)]

        def say(name: str, **judgement: Any) -> httpx.Response:
            return client.post("/v1/feedback", json={"request_id": name, **judgement})

        assert say(names[0], choice=1).json()["known"]
        assert say(names[1], choice=0).json()["known"]
        assert say(names[2], index=1, text="better").json()["known"]
        assert "language model's answer has no label" in say(names[0], label="x").json()["error"]
        assert 'data-judge="tiny"' in client.get("/").text
    kept = {judged.answered.request_id: judged.answered for judged in read_feedback(tmp_path).judged}
    assert [answer.text for answer in kept[names[0]].answers] == texts
    assert [answer.text for answer in kept[names[1]].answers] == texts
    assert kept[names[0]].inputs == [USER]
    assert [answer.input for answer in kept[names[0]].answers] == [0, 0]
    assert (kept[names[2]].inputs, [answer.input for answer in kept[names[2]].answers]) == (["a", "b"], [0, 1])
    first, second = ([{"role": "assistant", "content": text}] for text in texts)
    pairs = rows_of(read_feedback(tmp_path), "pairs").rows
    assert pairs[:2] == (
        {"prompt": USER, "chosen": second, "rejected": first},
        {"prompt": USER, "chosen": first, "rejected": second},
    )
    assert (pairs[2]["prompt"], pairs[2]["chosen"]) == ("b", "better")
