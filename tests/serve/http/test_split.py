"""One name answered by arms, the same arm for the same key; and a shadow that is asked beside and never answers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune.serve.errors import InputError
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.http.shadow import MOST_WAITING, agreement, answers_in
from edgetune.serve.http.split import Split

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "bundle-v1"
SOURCES = {"a": GOLDEN, "b": GOLDEN}
SPLIT = Split.of("a=0.7,b=0.3")
BODY = {"text": "where is my card"}


@pytest.fixture(scope="module")
def split_service(make_service: Callable[..., Any]) -> Any:
    return make_service(ServerSettings(watch_seconds=0, split=SPLIT), sources=SOURCES)


def test_a_key_meets_the_arm_that_the_documented_hash_says() -> None:
    for key in ("alice", "bob", "你好"):
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, key=b"edgetune").digest(), "big") / 2**64
        assert SPLIT.arm_of(key) == ("a" if number < 0.7 else "b")
    dealt = Counter(SPLIT.arm_of(str(number)) for number in range(10_000))
    assert abs(dealt["a"] - 7_000) < 200
    again = Split.of("a=0.7,b=0.3", salt="another")
    assert {SPLIT.arm_of(str(number)) == again.arm_of(str(number)) for number in range(100)} == {True, False}


@pytest.mark.parametrize("text", ["a", "a=1", "a=0,b=1", "a=x,b=1", "a=1,a=2", "a=inf,b=1", "a=nan,b=1", "=1,b=1"])
def test_a_split_that_cannot_be_dealt_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="split"):
        Split.of(text)


def test_arms_are_served_models_and_the_public_name_is_none_of_them() -> None:
    with pytest.raises(InputError, match="names 'b', which is not served"):
        SPLIT.check({"a": GOLDEN})
    with pytest.raises(InputError, match="both named 'a'"):
        Split.of("a=1,b=1", name="a").check(SOURCES)


def test_every_route_is_answered_by_the_arm_of_the_key_and_says_so(split_service: Any) -> None:
    for key in ("alice", "bob", "carol", "dan"):
        arm, headers = SPLIT.arm_of(key), {"x-edgetune-key": key}
        for path, body in (
            ("/v1/classify", BODY),
            ("/v1/classify", {**BODY, "model": "split"}),
            ("/v2/models/split/infer", {"inputs": [_texts("where is my card")]}),
        ):
            reply = split_service.post(path, body, headers)
            told = reply.json()
            assert (reply.status_code, reply.headers["x-edgetune-arm"]) == (200, arm), told
            assert told.get("model", told.get("model_name")) == arm
    direct = split_service.post("/v1/classify", {**BODY, "model": "b"}, {"x-edgetune-key": "alice"})
    assert direct.json()["model"] == "b"
    assert "x-edgetune-arm" not in direct.headers


def test_without_a_key_the_request_id_deals(split_service: Any) -> None:
    arms = Counter(split_service.post("/v1/classify", BODY).headers["x-edgetune-arm"] for _ in range(40))
    assert arms.keys() == {"a", "b"}
    reply = split_service.post("/v1/classify", BODY, {"x-request-id": "one"})
    assert reply.headers["x-edgetune-arm"] == SPLIT.arm_of("one")


def test_metrics_tell_requests_and_times_of_each_arm(split_service: Any) -> None:
    key = next(key for key in "abcdefgh" if SPLIT.arm_of(key) == "b")
    line = 'edgetune_arm_seconds_count{arm="b",status="200"}'
    before = split_service.metric(line)
    split_service.post("/v1/classify", BODY, {"x-edgetune-key": key})
    split_service.post("/v1/classify", {**BODY, "model": "b"})  # asked by its own name: no request to the split
    assert split_service.metric(line) == before + 1


def test_the_public_name_has_metadata_and_is_ready(split_service: Any) -> None:
    assert split_service.get("/v2/models/split/ready").json()["ready"] is True
    assert split_service.get("/v2/models/split").json()["inputs"] == split_service.get("/v2/models/a").json()["inputs"]


def _texts(text: str) -> dict[str, Any]:
    return {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}


def test_a_shadow_is_asked_beside_and_its_agreement_counted(
    make_service: Callable[..., Any], eventually: Callable[..., None], tmp_path: Path
) -> None:
    log = tmp_path / "shadow.jsonl"
    service = make_service(ServerSettings(watch_seconds=0, shadow="b", shadow_log=log), sources=SOURCES)
    reply = service.post("/v1/classify", BODY, {"x-request-id": "mine"})  # nobody is named: the shadow is not meant
    assert reply.json()["model"] == "a"
    service.post("/v2/models/a/infer", {"inputs": [_texts("where is my card")], "outputs": [{"name": "label"}]})
    service.post("/v1/classify", {**BODY, "model": "b"})  # the shadow itself has none
    service.post("/v1/classify", {"no": "text"})
    line = 'edgetune_shadow_answers_total{model="b",outcome="agreed"}'
    eventually(lambda: service.metric(line) == 2 and log.exists() and log.read_text().count("\n") == 2)
    first = json.loads(log.read_text().splitlines()[0])
    label = reply.json()["predictions"][0]["label"]
    assert first.keys() == {
        *("time", "request_id", "model", "shadow", "agree", "answer", "shadow_answer", "ms", "shadow_ms")
    }
    assert (first["request_id"], first["model"], first["shadow"], first["agree"]) == ("mine", "a", "b", True)
    assert first["answer"] == first["shadow_answer"] == [label]
    assert service.metric('edgetune_requests_total{model="b",route="classify",status="200"}') == 1


def test_a_shadow_that_is_busy_drops_and_delays_nobody(
    make_service: Callable[..., Any], eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(ServerSettings(watch_seconds=0, shadow="b"), sources=SOURCES)
    import threading

    gate = threading.Event()
    with service.repository.lease("b") as served:
        run = served.predictor.run
    monkeypatch.setattr(served.predictor, "run", lambda feed: (gate.wait(20), run(feed))[1])
    for number in range(MOST_WAITING + 3):
        assert service.post("/v1/classify", {"text": f"card {number}"}).status_code == 200
    line = 'edgetune_shadow_answers_total{{model="b",outcome="{}"}}'
    assert service.metric(line.format("dropped")) == 2  # one is being asked, and the queue is full
    gate.set()
    eventually(lambda: service.metric(line.format("agreed")) == MOST_WAITING + 1)


def test_answers_are_held_against_each_other_without_their_scores() -> None:
    def body(label: str, score: float) -> bytes:
        return json.dumps({"predictions": [{"label": label, "score": score}]}).encode()

    assert agreement(body("x", 0.5), body("x", 0.9)) is True
    assert agreement(body("x", 0.5), body("y", 0.5)) is False
    assert answers_in(b'{"choices": [{"message": {"content": "hello"}}, {"text": "there"}]}') == ["hello", "there"]
    assert answers_in(b'{"predictions": [{"value": 1.5}]}') is None
    assert answers_in(b"no json") is None
    span = {"type": "city", "start": 1, "end": 3, "text": "Bo", "score": 0.5}
    assert answers_in(json.dumps({"predictions": [{"entities": [span]}]}).encode()) == [[("city", 1, 3)]]
