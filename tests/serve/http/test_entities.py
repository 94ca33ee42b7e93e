"""The server with a model that finds entities: both routes, both protocols, long texts, and what is refused."""

from __future__ import annotations

import json

import pytest

from edgetune.serve import load

TEXTS = ["where is my parcel, and where is my card?", "i forgot my password " * 40]


@pytest.fixture(scope="module")
def service(make_service, kind_bundle):
    return make_service(sources={"golden": kind_bundle("entities", "tokens")})


@pytest.fixture(scope="module")
def answers(kind_bundle):
    """What the predictor gives, as JSON."""
    predictor = load(kind_bundle("entities", "tokens"), threads=1)
    assert len(predictor.encode(TEXTS)[1].windows) > 1
    return json.loads(json.dumps([predictor.head.as_json(answer, None) for answer in predictor.predict(TEXTS)]))


def near(entities):
    return [{**entity, "score": pytest.approx(entity["score"], abs=1e-5)} for entity in entities]


@pytest.mark.parametrize("route", ["/v1/extract", "/v1/classify"])
def test_entities_are_those_of_the_predictor(service, answers, route):
    answer = service.post(route, {"texts": TEXTS})
    assert answer.status_code == 200
    predictions = answer.json()["predictions"]
    assert [prediction["entities"] for prediction in predictions] == [near(one["entities"]) for one in answers]
    assert not any(prediction["truncated"] for prediction in predictions)
    assert sum(len(prediction["entities"]) for prediction in predictions) > 4


def test_the_open_inference_protocol_gives_them_as_json(service, answers):
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS}
    (output,) = service.infer({"inputs": [tensor]}).json()["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("entities", "BYTES", [2])
    for given, expected in zip(map(json.loads, output["data"]), answers, strict=True):
        spans = [{key: value for key, value in one.items() if key != "text"} for one in expected["entities"]]
        assert given == near(spans)


def test_ids_are_refused_since_they_tell_no_places(service):
    ids = {"shape": [1, 3], "datatype": "INT64", "data": [2, 5, 3]}
    body = {"inputs": [{"name": name, **ids} for name in ("input_ids", "attention_mask")]}
    answer = service.infer(body)
    assert answer.status_code == 400
    assert "do not tell where entities stand" in answer.json()["error"]


def test_other_models_are_refused_where_entities_are_asked_for(make_service, kind_bundle):
    answer = make_service(sources={"golden": kind_bundle("label")}).post("/v1/extract", {"text": "card"})
    assert answer.status_code == 422
    assert "finds no entities" in answer.json()["error"]
