"""One model that is stuck, or made to be, holds up itself alone."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgetune.export.once.pack import write_manifest
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleDamaged

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "card"}], "max_tokens": 2}
BOMB = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}"
BOMB += "{% endfor %}x"


def test_prompts_that_are_never_tokenized_hold_up_no_other_model(run_server, tiny_bundle, monkeypatch):
    """Two of them, for as many threads read the prompts of one model; the other is asked meanwhile."""
    server = run_server({"tiny": tiny_bundle, "other": tiny_bundle}, generation_seconds=300)
    stuck, released = threading.Semaphore(0), threading.Event()
    with server.repository.lease("tiny") as served:
        codec = served.generator.codec
    encode = codec.encode

    def wait_first(*given, **named):
        stuck.release()
        assert released.wait(60)
        return encode(*given, **named)

    monkeypatch.setattr(codec, "encode", wait_first)
    with ThreadPoolExecutor(2) as callers:
        waiting = [callers.submit(server.post, "/v1/chat/completions", CHAT) for _ in range(2)]
        try:
            assert stuck.acquire(timeout=60)
            assert stuck.acquire(timeout=60)
            for _ in range(3):
                answer = server.post("/v1/chat/completions", {**CHAT, "model": "other"})
                assert answer.status_code == 200
            assert not any(each.done() for each in waiting)
        finally:
            released.set()
        assert [each.result(60).status_code for each in waiting] == [200, 200]


def test_a_prompt_of_a_megabyte_is_refused_by_its_length(server, monkeypatch):
    with server.repository.lease("tiny") as served:
        monkeypatch.setattr(served.generator.codec, "encode", lambda *given, **named: 1 // 0)
    long = "card " * 210_000
    for path, body in (
        ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": long}]}),
        ("/v1/completions", {"model": "tiny", "prompt": long}),
    ):
        answer = server.post(path, body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert "at most 8,192: the context holds 256 tokens" in error["message"]


def test_a_bundle_whose_template_has_no_end_is_never_served(run_server, tiny_bundle, tmp_path, loop_thread):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_bundle, folder)
    server = run_server({"tiny": folder, "other": tiny_bundle})
    (folder / "chat_template.jinja").write_text(BOMB)
    write_manifest(folder, Bundle.open(folder, verify=False).manifest)
    with pytest.raises(BundleDamaged, match="takes more than it may on this chat"):
        loop_thread.wait(server.repository.load("tiny"))
    # What answered before goes on, with the template that it was opened with.
    assert server.post("/v1/chat/completions", CHAT).status_code == 200
    assert server.post("/v1/chat/completions", {**CHAT, "model": "other"}).status_code == 200
    assert json.loads(server.get("/v2/health/ready").text)["ready"] is True
