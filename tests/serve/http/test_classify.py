"""POST /v1/classify: answers as the predictor gives them, and refusals that say what to send instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetune.serve import load

BUNDLE = Path(__file__).parent.parent.parent / "golden" / "bundle-v1"
PREDICTOR = load(BUNDLE)
TEXTS = [case.text for case in PREDICTOR.bundle.golden().cases]


def test_one_text(service):
    answer = service.classify({"text": TEXTS[0]})
    assert answer.status_code == 200
    expected = PREDICTOR.predict_one(TEXTS[0])
    body = answer.json()
    assert (body["model"], len(body["predictions"])) == ("golden", 1)
    prediction = body["predictions"][0]
    assert prediction == {"label": expected.label, "score": prediction["score"], "truncated": False}
    assert prediction["score"] == pytest.approx(expected.score, abs=1e-5)


def test_several_texts_with_their_best_labels(service):
    predictions = service.classify({"texts": TEXTS, "top": 2, "model": "golden"}).json()["predictions"]
    for prediction, expected in zip(predictions, PREDICTOR.predict(TEXTS), strict=True):
        best = sorted(expected.scores, key=expected.scores.__getitem__, reverse=True)[:2]
        assert list(prediction["scores"]) == best
        assert prediction["label"] == best[0]
        assert prediction["scores"] == pytest.approx({label: expected.scores[label] for label in best}, abs=1e-3)


def test_a_whole_number_may_be_written_as_json_likes(service):
    answers = [service.classify(b'{"text": "card", "top": %s}' % top).json() for top in (b"2", b"2.0", b"0.2e1")]
    assert [list(answer["predictions"][0]["scores"]) for answer in answers] == [
        list(answers[0]["predictions"][0]["scores"])
    ] * 3


def test_more_labels_than_there_are_is_all_of_them(service):
    scores = service.classify({"text": "card", "top": 100}).json()["predictions"][0]["scores"]
    assert sorted(scores) == sorted(PREDICTOR.labels)
    assert sum(scores.values()) == pytest.approx(1, abs=1e-5)


def test_a_long_text_is_cut_and_said_to_be(service):
    predictions = service.classify({"texts": ["card " * 5000, "card"]}).json()["predictions"]
    assert [prediction["truncated"] for prediction in predictions] == [True, False]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The body is empty. Expected: {"),
        (b"  ", "The body is empty"),
        (b"card", "The body is no JSON"),
        (b'{"text": "a"', "The body is no JSON"),
        (b'{"text": NaN}', "The body is no JSON"),
        (b'{"text": "\\ud800"}', "The body is no JSON"),
        (b'{"text": "a\xff"}', "The body is no JSON"),
        (b"[" * 100_000, "The body is no JSON"),
        ([], "The body is no object, but of type list"),
        ("card", "The body is no object, but of type str"),
        (b"null", "no object, but of type NoneType"),
        ({}, "neither text nor texts"),
        ({"text": None}, "neither text nor texts"),
        ({"text": "a", "texts": ["b"]}, "both text and texts"),
        (
            {"txt": "a"},
            "'txt'. Expected: text, text_pair, texts, image, images, top or model To do: did you mean 'text'?",
        ),
        ({"inputs": "a"}, "no member 'inputs'"),
        ({"text": 7}, "Expected `str | null`, got `int` - at `$.text`"),
        ({"texts": "a"}, "Expected `array | null`, got `str` - at `$.texts`"),
        ({"texts": ["a", None]}, "at `$.texts[1]`"),
        ({"text": "a", "top": 0}, "top is 0. Expected: a whole number, 1 or more"),
        ({"text": "a", "top": 1.5}, "top is 1.5"),
        ({"text": "a", "top": 2**31}, "whole number"),
        (b'{"text": "a", "top": 1e999}', "no JSON"),
        ({"text": "a", "top": True}, "at `$.top`"),
        ({"text": "a", "model": 1}, "at `$.model`"),
    ],
)
def test_a_malformed_body_is_told_what_to_send(service, body, words):
    answer = service.classify(body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"text": ""}, "Text 0 is empty"),
        ({"texts": ["a", " \t"]}, "Text 1 is empty"),
        ({"texts": []}, "There are no texts"),
        ({"texts": ["a"] * 257}, "There are 257 texts. Expected: at most 256"),
        ({"texts": ["a\0"]}, "Text 0 holds a NUL"),
    ],
)
def test_what_cannot_be_answered_is_named(service, body, words):
    answer = service.classify(body)
    assert (answer.status_code, list(answer.json())) == (422, ["error"])
    assert words in answer.json()["error"]


def test_models_are_told_apart_by_name(make_service):
    service = make_service(sources={"first": BUNDLE, "second": BUNDLE})
    answer = service.classify({"text": "card"})
    assert answer.status_code == 400
    assert '"model": one of first, second' in answer.json()["error"]
    assert service.classify({"text": "card", "model": "second"}).json()["model"] == "second"
    assert service.classify({"text": "card", "model": "third"}).status_code == 404


def test_any_type_that_can_be_json_is_tried_and_others_are_refused(service):
    body = json.dumps({"text": "card"}).encode()
    for told in ("application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded", "x/y", ""):
        assert service.post("/v1/classify", body, {"content-type": told}).status_code == 200
    for told in ("multipart/form-data; boundary=x", "image/png"):  # a picture, which this model does not answer
        assert service.post("/v1/classify", body, {"content-type": told}).status_code == 400
    for told in ("application/xml", "text/html", "Application/Zip"):
        assert service.post("/v1/classify", body, {"content-type": told}).status_code == 415
    assert service.post("/v1/classify", body, {"content-encoding": "br"}).status_code == 415
    assert service.post("/v1/classify", body, {"content-encoding": "identity"}).status_code == 200


def test_other_routes_and_methods_are_refused_in_json(service):
    answer = service.get("/v1/classify")
    assert (answer.status_code, answer.headers["allow"], list(answer.json())) == (405, "POST", ["error"])
    for path in ("/nothing", "/v2/", "/v1/classify/", "/v2/models"):
        assert (service.get(path).status_code, list(service.get(path).json())) == (404, ["error"])
