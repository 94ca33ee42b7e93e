"""The Open Inference Protocol over REST: text and ids in, the right tensors out, and every fault of a question told."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.serve import load

PREDICTOR = load(Path(__file__).parent.parent.parent / "golden" / "bundle-v1")
GOLDEN = PREDICTOR.bundle.golden()
TEXTS = [case.text for case in GOLDEN.cases]
LABELS = [case.label for case in GOLDEN.cases]
LOGITS = np.array([case.logits for case in GOLDEN.cases])


def text_tensor(*texts: str) -> dict[str, Any]:
    return {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}


def outputs_of(answer: Any) -> dict[str, dict[str, Any]]:
    return {output["name"]: output for output in answer.json()["outputs"]}


def id_tensors(width: int | None = None) -> dict[str, dict[str, Any]]:
    """The golden texts as rows of ids, padded on the right."""
    width = width or max(len(case.input_ids) for case in GOLDEN.cases)
    ids = [case.input_ids + [0] * (width - len(case.input_ids)) for case in GOLDEN.cases]
    mask = [[1] * len(case.input_ids) + [0] * (width - len(case.input_ids)) for case in GOLDEN.cases]
    shape = [len(ids), width]
    return {
        name: {"name": name, "shape": shape, "datatype": "INT64", "data": data}
        for name, data in {"input_ids": ids, "attention_mask": mask}.items()
    }


def test_texts_become_labels_and_scores(service):
    answer = service.infer({"id": "seven", "inputs": [text_tensor(*TEXTS)]})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert {key: body[key] for key in ("id", "model_name", "model_version")} == {
        "id": "seven",
        "model_name": "golden",
        "model_version": "1",
    }
    label, score = body["outputs"]
    assert label == {"name": "label", "datatype": "BYTES", "shape": [len(TEXTS)], "data": LABELS}
    assert (score["name"], score["datatype"], score["shape"]) == ("score", "FP32", [len(TEXTS)])
    assert np.allclose(score["data"], PREDICTOR.scores(TEXTS).max(axis=1), atol=1e-3)


def test_without_an_id_none_is_given_back(service):
    assert "id" not in service.infer({"inputs": [text_tensor("a")]}).json()


def test_outputs_are_those_that_were_asked_for_in_that_order(service):
    names = ["truncated", "logits", "scores", "label"]
    outputs = outputs_of(
        service.infer({"inputs": [text_tensor(*TEXTS)], "outputs": [{"name": name} for name in names]})
    )
    assert list(outputs) == names
    assert outputs["truncated"] == {
        "name": "truncated",
        "datatype": "BOOL",
        "shape": [len(TEXTS)],
        "data": [False] * len(TEXTS),
    }
    for name in ("logits", "scores"):
        assert outputs[name]["shape"] == [len(TEXTS), len(PREDICTOR.labels)]
    logits = np.array(outputs["logits"]["data"]).reshape(LOGITS.shape)
    scores = np.array(outputs["scores"]["data"]).reshape(LOGITS.shape)
    assert np.abs(logits - LOGITS).max() < GOLDEN.tolerance
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert [PREDICTOR.labels[place] for place in scores.argmax(axis=1)] == LABELS


@pytest.mark.parametrize("width", [None, 32])
@pytest.mark.parametrize("datatype", ["INT64", "INT32"])
@pytest.mark.parametrize("flat", [True, False])
def test_ids_become_logits(service, width, datatype, flat):
    tensors = id_tensors(width)
    for tensor in tensors.values():
        tensor["datatype"] = datatype
        if flat:
            tensor["data"] = [value for row in tensor["data"] for value in row]
    outputs = outputs_of(service.infer({"inputs": list(tensors.values())}))
    assert list(outputs) == ["logits"]
    assert outputs["logits"]["datatype"] == "FP32"
    logits = np.array(outputs["logits"]["data"]).reshape(outputs["logits"]["shape"])
    assert np.abs(logits - LOGITS).max() < GOLDEN.tolerance


def test_a_mask_with_holes_reaches_the_graph_as_it_is(service):
    tensors = id_tensors()
    mask = np.array(tensors["attention_mask"]["data"])
    mask[:, 1] = 0
    tensors["attention_mask"]["data"] = mask.tolist()
    feed = {
        "input_ids": np.array(tensors["input_ids"]["data"]),
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(mask),
    }
    logits = np.array(outputs_of(service.infer({"inputs": list(tensors.values())}))["logits"]["data"])
    assert np.allclose(logits.reshape(LOGITS.shape), PREDICTOR.run(feed), atol=1e-5)
    assert np.abs(logits.reshape(LOGITS.shape) - LOGITS).max() > GOLDEN.tolerance


def test_token_type_ids_are_taken_and_matter(service):
    tensors = id_tensors()
    kinds = {**tensors["input_ids"], "name": "token_type_ids", "data": np.ones(tensors["input_ids"]["shape"]).tolist()}
    kinds["data"] = [[1] * tensors["input_ids"]["shape"][1]] * len(TEXTS)
    logits = np.array(outputs_of(service.infer({"inputs": [*tensors.values(), kinds]}))["logits"]["data"])
    assert np.abs(logits.reshape(LOGITS.shape) - LOGITS).max() > GOLDEN.tolerance


def test_a_column_of_texts_and_content_types_are_understood(service):
    column = {**text_tensor(*TEXTS), "shape": [len(TEXTS), 1], "data": [[text] for text in TEXTS], "name": "anything"}
    assert outputs_of(service.infer({"inputs": [column]}))["label"]["data"] == LABELS
    coded = [base64.b64encode(text.encode()).decode() for text in TEXTS]
    for question in (
        {"inputs": [{**text_tensor(*coded), "parameters": {"content_type": "base64"}}]},
        {"inputs": [text_tensor(*coded)], "parameters": {"content_type": "base64"}},
    ):
        label = outputs_of(service.infer(question))["label"]
        assert label["data"] == LABELS
        assert "parameters" not in label
    plain = {"inputs": [text_tensor(*TEXTS)], "parameters": {"content_type": "str"}}
    assert outputs_of(service.infer(plain))["label"]["parameters"] == {"content_type": "str"}


def faulty(name: str, **changes: Any) -> list[dict[str, Any]]:
    tensors = id_tensors()
    tensors[name] |= changes
    return list(tensors.values())


WIDTH = max(len(case.input_ids) for case in GOLDEN.cases)
ROWS = len(TEXTS)
MALFORMED = {
    "no JSON": (b"{", "no inference request"),
    "empty": (b"", "no inference request"),
    "NaN": (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [NaN]}]}', "no inference request"),
    "no UTF-8": (b'{"id": "\xff"}', "no inference request"),
    "deep": (b"[" * 100_000, "no inference request"),
    "an unpaired surrogate": (
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a\\ud800b"]}]}',
        "hex escape",
    ),
    "no inputs": ({"inputs": []}, "no inference request"),
    "an id that is no string": ({"id": 7, "inputs": [text_tensor("a")]}, "no inference request"),
    "two of a name": ({"inputs": [text_tensor("a"), text_tensor("b")]}, "same name"),
    "another input": ({"inputs": [{**text_tensor("a"), "datatype": "FP32"}]}, "no input text"),
    "a mask is missing": ({"inputs": [id_tensors()["input_ids"]]}, "attention_mask is missing"),
    "more texts than the shape": ({"inputs": [{**text_tensor("a", "b"), "shape": [1]}]}, "2 elements, not 1"),
    "a shape of three": ({"inputs": [{**text_tensor("a"), "shape": [1, 1, 1]}]}, "[n] or [n, 1]"),
    "a negative size": ({"inputs": [{**text_tensor("a"), "shape": [-1]}]}, "no inference request"),
    "a giant size": ({"inputs": [{**text_tensor("a"), "shape": [2**62]}]}, "fits into a body"),
    "numbers for texts": ({"inputs": [{**text_tensor("a"), "data": [1]}]}, "array of strings"),
    "no data": ({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES"}]}, "has no data"),
    "texts for ids": ({"inputs": faulty("input_ids", data=["a"])}, "array of integers"),
    "halves for ids": ({"inputs": faulty("input_ids", data=[[0.5] * WIDTH] * ROWS)}, "array of integers"),
    "floats by datatype": ({"inputs": faulty("input_ids", datatype="FP32")}, "INT64 or INT32"),
    "ragged": ({"inputs": faulty("input_ids", data=[[1], [2, 3]])}, "another shape"),
    "flat and too few": ({"inputs": faulty("input_ids", data=[1, 2])}, "2 elements"),
    "one dimension": ({"inputs": faulty("input_ids", shape=[3], data=[1, 2, 3])}, "[rows, tokens]"),
    "no tokens": ({"inputs": faulty("input_ids", shape=[ROWS, 0], data=[])}, "[rows, tokens]"),
    "shapes that differ": (
        {"inputs": faulty("attention_mask", shape=[1, 1], data=[1])},
        "differ in shape",
    ),
    "an id below": ({"inputs": faulty("input_ids", data=[[-1] * WIDTH] * ROWS)}, "expected: 0 to 85"),
    "an id above": ({"inputs": faulty("input_ids", data=[[86] * WIDTH] * ROWS)}, "holds 86 in row 0, column 0"),
    "an id past 32 bits": (
        {"inputs": faulty("input_ids", datatype="INT32", data=[[2**31] * WIDTH] * ROWS)},
        "fit into INT32",
    ),
    "a mask of twos": ({"inputs": faulty("attention_mask", data=[[2] * WIDTH] * ROWS)}, "0 to 1"),
    "an output that is none": ({"inputs": [text_tensor("a")], "outputs": [{"name": "x"}]}, "label or score"),
    "an output twice": (
        {"inputs": [text_tensor("a")], "outputs": [{"name": "label"}, {"name": "label"}]},
        "asked for twice",
    ),
    "a content type": ({"inputs": [{**text_tensor("a"), "parameters": {"content_type": "pd"}}]}, "str or base64"),
    "no base64": ({"inputs": [{**text_tensor("ä"), "parameters": {"content_type": "base64"}}]}, "no base64"),
    "base64 of no UTF-8": ({"inputs": [{**text_tensor("/w=="), "parameters": {"content_type": "base64"}}]}, "UTF-8"),
    "a flag that is none": (
        {"inputs": [text_tensor("a")], "parameters": {"binary_data_output": 1}},
        "true or false",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_question_is_told_what_is_wrong(service, name):
    body, words = MALFORMED[name]
    answer = service.infer(body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert words.lower() in answer.json()["error"].lower()


UNANSWERABLE = {
    "empty": ({"inputs": [text_tensor("a", "")]}, "Text 1 is empty"),
    "blank": ({"inputs": [text_tensor(" \n\t")]}, "Text 0 is empty"),
    "NUL": ({"inputs": [text_tensor("a", "b\0c")]}, "Text 1 holds a NUL"),
    "ten thousand": ({"inputs": [text_tensor(*["a"] * 10_000)]}, "There are 10,000 texts"),
    "none": ({"inputs": [text_tensor()]}, "There are no texts"),
    "long rows": ({"inputs": list(id_tensors(33).values())}, "33 tokens"),
    "a row of nothing": ({"inputs": faulty("attention_mask", data=[[0] * WIDTH] * ROWS)}, "Row 0 has no token"),
    "many rows": (
        {
            "inputs": [
                {"name": name, "shape": [257, 1], "datatype": "INT64", "data": [1] * 257}
                for name in ("input_ids", "attention_mask")
            ]
        },
        "There are 257 rows",
    ),
}


@pytest.mark.parametrize("name", UNANSWERABLE)
def test_what_no_model_can_answer_is_refused_by_its_place(service, name):
    body, words = UNANSWERABLE[name]
    answer = service.infer(body)
    assert (answer.status_code, list(answer.json())) == (422, ["error"])
    assert words in answer.json()["error"]


def test_versions_are_those_that_are_served(service):
    question = {"inputs": [text_tensor("a")]}
    assert service.post("/v2/models/golden/versions/1/infer", question).status_code == 200
    assert service.post("/v2/models/golden/versions/2/infer", question).status_code == 404
    assert service.post("/v2/models/other/infer", question).status_code == 404


@pytest.mark.parametrize("name", ["%2e%2e", "..%2f..%2fetc", "golden%00", "%ff", "a" * 5000, "golden/"])
def test_no_name_leads_anywhere(service, name):
    for answer in (
        service.post(f"/v2/models/{name}/infer", {"inputs": [text_tensor("a")]}),
        service.get(f"/v2/models/{name}"),
        service.get(f"/models/{name}/report"),
    ):
        assert (answer.status_code, list(answer.json())) == (404, ["error"])


def test_the_server_and_its_model_tell_what_they_are(service):
    assert service.get("/v2").json()["name"] == "edgetune"
    assert "binary_tensor_data" in service.get("/v2").json()["extensions"]
    for path in ("/v2/models/golden", "/v2/models/golden/versions/1"):
        model = service.get(path).json()
        assert (model["name"], model["versions"], model["platform"]) == ("golden", ["1"], "onnxruntime_onnx")
        assert {each["name"]: each["datatype"] for each in model["inputs"]} == {
            "text": "BYTES",
            "input_ids": "INT64",
            "token_type_ids": "INT64",
            "attention_mask": "INT64",
        }
        assert {each["name"]: each["shape"] for each in model["outputs"]} == {
            "label": [-1],
            "score": [-1],
            "scores": [-1, 3],
            "truncated": [-1],
            "logits": [-1, 3],
        }
        assert model["parameters"]["labels"] == list(PREDICTOR.labels)
    assert service.get("/v2/models/golden/versions/9").status_code == 404


def test_health_names_the_provider_that_runs(service):
    assert service.get("/v2/health/live").json() == {"live": True}
    ready = service.get("/v2/health/ready")
    assert ready.status_code == 200
    assert ready.json() == {
        "ready": True,
        "models": {"golden": {"state": "READY", "version": "1", "providers": ["CPUExecutionProvider"], "reason": ""}},
    }
    assert service.get("/v2/models/golden/ready").json() == {"name": "golden", "ready": True}
    assert service.get("/v2/models/other/ready").status_code == 404


def test_without_keys_nobody_changes_what_is_loaded(service):
    for what in ("load", "unload"):
        answer = service.post(f"/v2/repository/models/golden/{what}", {})
        assert answer.status_code == 403
        assert "--api-key-file" in answer.json()["error"]
    index = [{"name": "golden", "version": "1", "state": "READY", "reason": ""}]
    assert service.post("/v2/repository/index", {}).json() == index
    assert service.post("/v2/repository/index").json() == index


def test_behind_a_key_models_are_unloaded_and_loaded_again(make_service, tmp_path):
    from edgetune.serve.http.keys import Keys

    (tmp_path / "keys").write_text("secret-key-of-this-test-0123456789\n")
    service = make_service(keys=Keys.open(tmp_path / "keys"))
    question = {"inputs": [text_tensor("a")]}
    refused = service.infer(question)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert service.infer(question, {"x-api-key": "another"}).status_code == 401
    assert service.infer(question, {"authorization": "Basic secret-key-of-this-test-0123456789"}).status_code == 401
    assert service.get("/").status_code == 401
    assert [service.get(path).status_code for path in ("/v2/health/live", "/v2/health/ready", "/metrics")] == [200] * 3
    assert service.infer(question, {"x-api-key": "secret-key-of-this-test-0123456789"}).status_code == 200

    service.headers = {"authorization": "Bearer secret-key-of-this-test-0123456789"}
    assert service.post("/v2/repository/models/other/load").status_code == 404
    assert service.post("/v2/repository/models/golden/unload").json() == {}
    gone = service.infer(question)
    assert (gone.status_code, gone.headers["retry-after"]) == (503, "1")
    assert service.get("/v2/models/golden/ready").status_code == 503
    assert service.post("/v2/repository/index", {"ready": True}).json() == []
    assert service.post("/v2/repository/index", {}).json()[0]["state"] == "UNAVAILABLE"
    assert service.post("/v2/repository/models/golden/load", {}).json() == {}
    assert service.infer(question).status_code == 200
