"""A cascade and a bundle without a graph behind the server: who answered, on both protocols, and who waits for whom."""

from __future__ import annotations

import pytest

EASY, HARD = "where is my parcel", "card login"


@pytest.fixture(scope="module")
def cascade(make_service, cascade_bundle):
    return make_service(sources={"golden": cascade_bundle})


@pytest.fixture(scope="module")
def static(make_service, static_bundle):
    return make_service(sources={"golden": static_bundle})


def infer(service, texts, *outputs):
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    answer = service.infer({"inputs": [tensor], "outputs": [{"name": name} for name in outputs]})
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def test_classify_tells_who_answered(cascade):
    predictions = cascade.classify({"texts": [EASY, HARD]}).json()["predictions"]
    assert [one["answered_by"] for one in predictions] == ["static", "fp32"]
    assert set(predictions[0]) == {"label", "score", "truncated", "answered_by"}


def test_the_protocol_has_a_tensor_of_who_answered(cascade):
    found = infer(cascade, [EASY, HARD], "label", "answered_by")
    assert found["answered_by"] == ["static", "fp32"]
    assert found["label"][0] == "delivery"
    metadata = cascade.get("/v2/models/golden").json()
    assert "answered_by" in [output["name"] for output in metadata["outputs"]]
    assert metadata["parameters"]["scheme"] == "fp32"


def test_ids_are_answered_as_texts_are_and_holes_in_a_mask_by_the_graph(cascade):
    with cascade.repository.lease("golden") as served:
        (row,) = served.predictor.encode([EASY])
    names = ("input_ids", "attention_mask", "token_type_ids")
    for mask, by in (([1] * row.size, "static"), ([1, 0] + [1] * (row.size - 2), "fp32")):
        tensors = [
            {"name": name, "shape": [1, row.size], "datatype": "INT64", "data": data}
            for name, data in zip(names, (row.ids, mask, row.type_ids), strict=True)
        ]
        answer = cascade.infer({"inputs": tensors, "outputs": [{"name": "answered_by"}]})
        assert answer.json()["outputs"][0]["data"] == [by]


def test_easy_texts_are_answered_while_the_graph_is_held_up(cascade, monkeypatch):
    gate = cascade.block(monkeypatch)
    hard = cascade.begin("POST", "/v1/classify", {"text": HARD})
    try:
        easy = cascade.classify({"text": EASY}).json()["predictions"][0]
        assert easy["answered_by"] == "static"
        assert not hard.done()
    finally:
        gate.set()
    assert hard.result(20).json()["predictions"][0]["answered_by"] == "fp32"


def test_a_bundle_without_a_graph_is_served(static):
    predictions = static.classify({"texts": [EASY, "card refund"]}).json()["predictions"]
    assert [one["label"] for one in predictions] == ["delivery", "payment"]
    assert "answered_by" not in predictions[0]
    metadata = static.get("/v2/models/golden").json()
    assert "answered_by" not in [output["name"] for output in metadata["outputs"]]
    assert metadata["parameters"]["providers"] == ["numpy"]
    assert static.get("/v2/health/ready").json()["models"]["golden"]["providers"] == ["numpy"]
    tensors = [
        {"name": name, "shape": [1, 3], "datatype": "INT64", "data": data}
        for name, data in (("input_ids", [2, 49, 3]), ("attention_mask", [1, 0, 1]))
    ]
    answer = static.infer({"inputs": tensors})
    assert answer.json()["outputs"][0]["data"] == pytest.approx([0, 0, 0])  # the masked word alone would say something
    assert static.get("/openapi.json").status_code == 200


def test_the_description_knows_who_answered(cascade):
    assert "answered_by" in cascade.get("/openapi.json").text
