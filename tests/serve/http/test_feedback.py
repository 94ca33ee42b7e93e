"""POST /v1/feedback, and what a server keeps of its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.benchmarks.compare.votes import read_votes
from edgetune.serve.feedback.reading import read_feedback
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.http.split import Split

GOLDEN = Path(__file__).parents[2] / "golden" / "bundle-v1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("feedback")


@pytest.fixture(scope="module")
def keeping(make_service, folder):
    return make_service(ServerSettings(watch_seconds=0, feedback=folder))


def test_answers_and_votes_are_kept(keeping, folder):
    answer = keeping.classify({"texts": ["my card is lost, mail a@b.org", "cash"]})
    name = answer.headers["x-request-id"]
    labels = [each["label"] for each in answer.json()["predictions"]]
    assert keeping.post("/v1/feedback", {"request_id": name, "label": "lost"}).json() == {
        "request_id": name,
        "known": True,
    }
    assert keeping.post("/v1/feedback", {"request_id": name, "index": 1, "vote": "up"}).status_code == 200
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["cash"]}
    inferred = keeping.infer({"inputs": [tensor]}).headers["x-request-id"]
    assert keeping.post("/v1/feedback", {"request_id": inferred, "vote": "down"}).json()["known"]
    first, second = read_feedback(folder).judged
    assert first.answered.inputs == ["my card is lost, mail [email]", "cash"]
    assert [each.label for each in first.answered.answers] == labels
    assert [(vote.index, vote.label, vote.vote) for vote in first.votes] == [(0, "lost", None), (1, None, "up")]
    assert (second.answered.request_id, second.answered.answers[0].label) == (inferred, labels[1])


def test_a_vote_on_what_another_process_answered_is_kept(keeping):
    answer = keeping.post("/v1/feedback", {"request_id": "elsewhere", "choice": 1})
    assert answer.json() == {"request_id": "elsewhere", "known": False}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "The body is empty"),
        ({"vote": "up"}, 400, "missing required field `request_id`"),
        ({"request_id": "NAME"}, 400, "The body has no judgement. Expected: one of vote, choice, label, text"),
        ({"request_id": "NAME", "vote": "up", "label": "x"}, 400, "The body has vote and label"),
        ({"request_id": "NAME", "vote": "meh"}, 400, "Invalid enum value 'meh'"),
        ({"request_id": "NAME", "votes": "up"}, 400, "unknown field `votes`"),
        ({"request_id": "NAME", "label": " "}, 400, "The label is empty"),
        ({"request_id": "NAME", "vote": "up", "over": 1}, 400, "over without choice"),
        ({"request_id": "NAME", "index": 1, "vote": "up"}, 422, "has no answer of that number. Expected: 0 to 0"),
        ({"request_id": "NAME", "text": "x"}, 422, "A classifier's answer is no text"),
        ({"request_id": "x", "choice": 2}, 422, "The answer 2 was chosen over none"),
        ({"request_id": "x", "choice": 2, "over": 2}, 422, "The answer 2 was chosen over itself"),
    ],
)
def test_what_is_no_vote_is_refused(keeping, body, status, words):
    name = keeping.classify({"text": "cash"}).headers["x-request-id"]
    if isinstance(body, dict) and body.get("request_id") == "NAME":
        body = {**body, "request_id": name}
    answer = keeping.post("/v1/feedback", body)
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_a_disk_that_takes_nothing_refuses_votes_and_answers_on(make_service, tmp_path, monkeypatch):
    service = make_service(ServerSettings(watch_seconds=0, feedback=tmp_path / "kept"))
    monkeypatch.setattr("os.fsync", _full)
    assert service.classify({"text": "cash"}).status_code == 200
    refused = service.post("/v1/feedback", {"request_id": "a", "vote": "up"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "The vote could not be kept" in refused.json()["error"]
    assert service.metric("edgetune_feedback_dropped") == 1


def _full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_server_without_a_folder_says_so(service):
    answer = service.post("/v1/feedback", {"request_id": "a", "vote": "up"})
    assert answer.status_code == 404
    assert answer.json()["error"] == "This server keeps no feedback. To do: start it with --feedback DIR"


def test_the_page_lets_a_person_vote_where_feedback_is_kept(keeping, service):
    assert 'data-votes=1><textarea name="text"' in keeping.get("/").text
    assert "data-votes" not in service.get("/").text


def test_votes_on_a_split_are_read_by_its_arms(make_service, tmp_path):
    """A vote is one as it stands; a corrected label is one too: good where it is the label that was answered."""
    settings = ServerSettings(watch_seconds=0, feedback=tmp_path, split=Split.of("a=0.5,b=0.5", "split"))
    service = make_service(settings, sources=dict.fromkeys("ab", GOLDEN))
    expected = {}
    for number, said in enumerate(("up", "down", "same", "other", "later")):
        answer = service.post("/v1/classify", {"texts": ["where is my card"]}, {"x-edgetune-key": f"person-{number}"})
        label = answer.json()["predictions"][0]["label"]
        other = next(each for each in ("account", "delivery", "payment") if each != label)
        judgement = {"up": {"vote": "up"}, "down": {"vote": "down"}, "same": {"label": label}}.get(
            said, {"label": other}
        )
        name = answer.headers["x-request-id"]
        if said == "later":  # the last word counts
            service.post("/v1/feedback", {"request_id": name, "vote": "up"})
        assert service.post("/v1/feedback", {"request_id": name, **judgement}).json()["known"]
        expected[said] = (answer.headers["x-edgetune-arm"], said in ("up", "same"))
    service.post("/v1/feedback", {"request_id": "elsewhere", "vote": "up"})
    votes = read_votes([tmp_path])
    assert dict(zip(expected, zip(votes.arms, votes.good, strict=True), strict=True)) == expected
    assert votes.skipped == 1
