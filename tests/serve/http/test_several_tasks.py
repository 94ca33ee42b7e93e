"""The server with a bundle of several tasks: all answers in one reply, and a named output a task in the protocol."""

from __future__ import annotations

import json

import pytest

from edgetune.serve import load
from tests.several_tasks import TASKS

pytestmark = pytest.mark.slow  # its bundle is built

TEXTS = ["my card is lost", "i forgot the password " * 40]


@pytest.fixture(scope="module")
def service(make_service, several_bundle):
    return make_service(sources={"desk": several_bundle})


@pytest.fixture(scope="module")
def expected(several_bundle):
    predictor = load(several_bundle, threads=1)
    given = [predictor.head.as_json(predictor.predict_one(text), None) for text in TEXTS]
    return json.loads(json.dumps(given))


def near(value):
    if isinstance(value, dict):
        return {name: near(each) for name, each in value.items()}
    if isinstance(value, list):
        return [near(each) for each in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


@pytest.mark.parametrize("route", ["/v1/classify", "/v1/extract"])
def test_all_tasks_are_answered_in_one_reply(service, expected, route):
    answer = service.post(route, {"texts": TEXTS})
    assert answer.status_code == 200
    assert answer.json() == {"model": "desk", "predictions": near(expected)}


def test_the_open_inference_protocol_names_an_output_a_task(service, several_bundle, expected):
    question = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS}]}
    outputs = {one["name"]: one for one in service.post("/v2/models/desk/infer", question).json()["outputs"]}
    assert list(outputs) == ["intent.label", "intent.score", "words.value", "people.entities"]
    assert outputs["intent.label"]["data"] == [one["intent"]["label"] for one in expected]
    assert outputs["words.value"]["data"] == near([one["words"]["value"] for one in expected])
    spans = [json.loads(each) for each in outputs["people.entities"]["data"]]
    assert [[span["type"] for span in each] for each in spans] == [
        [span["type"] for span in one["people"]] for one in expected
    ]
    asked = {**question, "outputs": [{"name": "logits.intent"}, {"name": "truncated"}]}
    logits, truncated = service.post("/v2/models/desk/infer", asked).json()["outputs"]
    alone = load(several_bundle, task="intent", threads=1)
    assert logits["shape"] == [2, 4]
    assert logits["data"] == near(alone.logits(alone.encode(TEXTS), batch_size=1).ravel().tolist())
    assert truncated["data"] == [False, True]
    described = service.get("/v2/models/desk").json()
    assert {"intent.label", "words.value", "people.entities", "logits.intent"} <= {
        one["name"] for one in described["outputs"]
    }


def test_the_page_and_the_description_know_all_tasks(service):
    page = service.get("/").text
    assert all(f"{task}: " in page for task in TASKS)
    schema = service.get("/openapi.json").json()["components"]["schemas"]["Prediction"]["anyOf"][0]
    assert schema["required"] == list(TASKS)
    assert schema["properties"]["people"]["type"] == "array"
