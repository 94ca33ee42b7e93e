"""The server with heads and codecs of every kind: both protocols, metadata, description and page."""

from __future__ import annotations

import json

import pytest

from edgetune.serve import load
from edgetune.serve.codecs import CODECS
from tests.golden.kinds import ROW_CODECS, ROW_KINDS

TEXTS = ["where is my parcel", "i forgot my password"]
PAIRS = [["where is my parcel", "card"], ["card", "money"]]


@pytest.fixture(scope="module")
def services(make_service, kind_bundle):
    """`services(kind, codec)`: the server of one such bundle, as "golden"."""
    made = {}

    def service(kind, codec="text"):
        if (kind, codec) not in made:
            made[kind, codec] = make_service(sources={"golden": kind_bundle(kind, codec)})
        return made[kind, codec]

    return service


def bytes_tensor(name, data):
    return {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data}


@pytest.mark.parametrize("kind", ROW_KINDS)
@pytest.mark.parametrize("codec", ROW_CODECS)
def test_classify_gives_the_predictor_s_answers(services, kind_bundle, kind, codec):
    inputs = TEXTS if codec == "text" else PAIRS
    predictor = load(kind_bundle(kind, codec), threads=1)
    answer = services(kind, codec).classify({"texts": inputs})
    assert answer.status_code == 200
    for got, one in zip(answer.json()["predictions"], inputs, strict=True):
        wanted = json.loads(json.dumps(predictor.head.as_json(predictor.predict_one(one), None)))
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            nearly = isinstance(value, float | dict) or name == "embedding"
            assert got[name] == (pytest.approx(value, abs=1e-5) if nearly else value)


def test_one_pair_by_its_members(services):
    service = services("label", "text-pair")
    one = service.classify({"text": "where is my parcel", "text_pair": "card"}).json()["predictions"]
    assert one == service.classify({"texts": PAIRS[:1]}).json()["predictions"]


@pytest.mark.parametrize(
    ("codec", "body", "status", "words"),
    [
        ("text-pair", {"text": "card"}, 422, "Input 0 is a single text"),
        ("text-pair", {"texts": [["a", "b"], ["a"]]}, 422, "Input 1 is no pair of texts"),
        ("text-pair", {"texts": [["a", " "]]}, 422, "The text_pair of input 0 is empty"),
        ("text-pair", {"texts": [["a", "b"], ["c\0", "d"]]}, 422, "The text of input 1 holds a NUL"),
        ("text-pair", {"text_pair": "card"}, 400, "neither text nor texts"),
        ("text-pair", {"texts": [["a", "b"]], "text_pair": "c"}, 400, "text_pair without text"),
        ("text", {"text": "card", "text_pair": "money"}, 422, "Text 0 is of type tuple"),
        ("text", {"texts": [["a", "b"]]}, 422, "Text 0 is of type list"),
    ],
)
def test_inputs_of_another_kind_are_refused(services, codec, body, status, words):
    answer = services("label", codec).classify(body)
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_pairs_come_as_two_tensors(services, kind_bundle):
    predictor = load(kind_bundle("number", "text-pair"), threads=1)
    first, second = ([pair[part] for pair in PAIRS] for part in (0, 1))
    body = {"inputs": [bytes_tensor("text_pair", second), bytes_tensor("text", first)]}  # by name, in any order
    (output,) = services("number", "text-pair").infer(body).json()["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("value", "FP32", [2])
    assert output["data"] == pytest.approx([predictor.predict_one(pair).value for pair in PAIRS], abs=1e-5)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([bytes_tensor("text", ["a"])], "text_pair is missing"),
        ([bytes_tensor("text", ["a"]), bytes_tensor("other", ["b"])], "There is no input other"),
        ([bytes_tensor("text", ["a", "b"]), bytes_tensor("text_pair", ["b"])], "2 in text and 1 in text_pair"),
        (
            [
                bytes_tensor("text", ["a"]),
                {"name": "text_pair", "shape": [1, 1], "datatype": "INT64", "data": [1]},
            ],
            "text_pair is of datatype INT64",
        ),
        (
            [
                {"name": name, "shape": [1, 2], "datatype": "INT64", "data": [1, 1]}
                for name in ("input_ids", "attention_mask")
            ],
            "token_type_ids is missing",
        ),
    ],
)
def test_tensors_that_are_no_pairs_are_refused(services, inputs, words):
    answer = services("label", "text-pair").infer({"inputs": inputs})
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_a_raw_text_is_no_pair(services):
    answer = services("label", "text-pair").infer(b"card", {"inference-header-content-length": "0"})
    assert answer.status_code == 400
    assert "the tensors text and text_pair" in answer.json()["error"]


def test_several_labels_are_lists_in_json_and_every_output_has_its_shape(services, kind_bundle):
    names = ["labels", "scores", "truncated", "logits"]
    body = {"inputs": [bytes_tensor("text", TEXTS)], "outputs": [{"name": name} for name in names]}
    outputs = {output["name"]: output for output in services("labels").infer(body).json()["outputs"]}
    predictor = load(kind_bundle("labels"), threads=1)
    assert [json.loads(row) for row in outputs["labels"]["data"]] == [predictor.predict_one(t).labels for t in TEXTS]
    assert {name: (output["datatype"], output["shape"]) for name, output in outputs.items()} == {
        "labels": ("BYTES", [2]),
        "scores": ("FP32", [2, 3]),
        "truncated": ("BOOL", [2]),
        "logits": ("FP32", [2, 3]),
    }
    assert outputs["truncated"]["data"] == [False, False]


def test_an_output_of_another_head_is_refused(services):
    body = {"inputs": [bytes_tensor("text", TEXTS)], "outputs": [{"name": "label"}]}
    answer = services("number").infer(body)
    assert answer.status_code == 400
    assert "Expected: value or truncated or logits" in answer.json()["error"]


@pytest.mark.parametrize("kind", ROW_KINDS)
@pytest.mark.parametrize("codec", ROW_CODECS)
def test_metadata_tells_the_tensors_that_are_taken_and_given(services, kind, codec):
    service = services(kind, codec)
    metadata = service.get("/v2/models/golden").json()
    texts = [tensor for tensor in metadata["inputs"] if tensor["datatype"] == "BYTES"]
    assert [tensor["name"] for tensor in texts] == list(CODECS[codec].parts)
    columns = [[pair[part] for pair in PAIRS] for part in range(len(texts))]
    body = {
        "inputs": [bytes_tensor(tensor["name"], column) for tensor, column in zip(texts, columns, strict=True)],
        "outputs": [{"name": output["name"]} for output in metadata["outputs"]],
    }
    outputs = service.infer(body).json()["outputs"]
    told = [(output["name"], output["datatype"], [2, *output["shape"][1:]]) for output in metadata["outputs"]]
    assert [(output["name"], output["datatype"], output["shape"]) for output in outputs] == told


@pytest.mark.parametrize("kind", ROW_KINDS)
@pytest.mark.parametrize("codec", ROW_CODECS)
def test_the_page_asks_what_the_model_answers(services, kind, codec):
    service = services(kind, codec)
    page = service.get("/").text.replace("&#x27;", "'").replace("&quot;", '"')
    body = page.partition("/v1/classify -d '")[2].partition("'")[0]
    assert json.loads(body).keys() == {*CODECS[codec].parts}
    assert service.classify(body.encode()).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "codec"), [("labels", "text-pair"), pytest.param("number", "text", marks=pytest.mark.long)]
)
def test_the_server_answers_as_it_describes_itself(make_service, kind_bundle, complaints, kind, codec):
    import schemathesis

    service = make_service(sources={"golden": kind_bundle(kind, codec)})
    settings = {
        "seed": 0,
        "generation": {"max-examples": 5},
        "parameters": {"path.name": "golden", "path.version": "1"},
        "operations": [
            {"include-operation-id": name, "checks": {"positive_data_acceptance": {"enabled": False}}}
            for name in ("infer", "infer_version", "chat", "complete", "embeddings", "extract")
        ],
    }
    config = schemathesis.config.SchemathesisConfig.from_dict(settings)
    found, requests = complaints(schemathesis.openapi.from_asgi("/openapi.json", service.app, config=config))
    assert found == []
    assert requests > 200
    assert service.metric('edgetune_requests_total{model="golden",route="classify",status="200"}') > 0
