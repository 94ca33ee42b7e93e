"""POST /v1/embeddings: OpenAI's members and shapes, its client, and refusals in its form."""

from __future__ import annotations

import base64
import json

import httpx
import numpy as np
import openai
import pytest

from edgetune.serve import load

TEXTS = ["where is my parcel", "i forgot my password"]


@pytest.fixture(scope="module")
def predictor(kind_bundle):
    return load(kind_bundle("embedding"), threads=1)


@pytest.fixture(scope="module")
def service(make_service, kind_bundle):
    return make_service(sources={"vectors": kind_bundle("embedding"), "labels": kind_bundle("label")})


def asked(service, **body):
    return service.post("/v1/embeddings", {"model": "vectors", **body})


def test_vectors_as_numbers(service, predictor):
    answer = asked(service, input=TEXTS, user="someone")
    assert answer.status_code == 200
    body = answer.json()
    assert {name: body[name] for name in ("object", "model")} == {"object": "list", "model": "vectors"}
    assert [(row["object"], row["index"]) for row in body["data"]] == [("embedding", 0), ("embedding", 1)]
    assert np.allclose([row["embedding"] for row in body["data"]], predictor.embed(TEXTS), atol=1e-5)
    tokens = sum(row.size for row in predictor.encode(TEXTS))
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_vectors_as_bytes(service, predictor):
    (row,) = asked(service, input=TEXTS[0], encoding_format="base64").json()["data"]
    vector = np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4")
    assert np.allclose(vector, predictor.embed(TEXTS[:1])[0], atol=1e-5)


def test_a_beginning_of_length_one(service, predictor):
    (row,) = asked(service, input=TEXTS[0], dimensions=2).json()["data"]
    assert np.allclose(row["embedding"], predictor.embed(TEXTS[:1], dimensions=2)[0], atol=1e-5)
    assert np.linalg.norm(row["embedding"]) == pytest.approx(1)


def test_a_prompt_by_its_name(service, predictor):
    (row,) = asked(service, input=TEXTS[0], prompt_name="query").json()["data"]
    assert np.allclose(row["embedding"], predictor.embed(["query: " + TEXTS[0]])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({"input": []}, 400, "input", "input is empty"),
        ({"input": [1, 2]}, 400, "input", "token ids"),
        ({"input": [[1], [2]]}, 400, "input", "token ids"),
        ({"input": " "}, 400, None, "Text 0 is empty"),
        ({"input": "a", "dimensions": 7}, 400, "dimensions", "Expected: 3, 2"),
        ({"input": "a", "prompt_name": "x"}, 400, "prompt_name", "one of query, document"),
        ({"input": "a", "encoding_format": "hex"}, 400, None, "not understood"),
        ({"input": "a", "model": "labels"}, 400, "model", "gives no vectors"),
        ({"input": "a", "model": "none"}, 404, None, "There is no model"),
        ({}, 400, None, "not understood"),
    ],
)
def test_refusals_are_those_of_openai(service, body, status, param, words):
    answer = asked(service, **body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert words in error["message"]


def test_openai_s_client_reads_the_vectors(service, predictor):
    """It asks for base64 by itself, and decodes it."""

    async def ask(**more):
        transport = httpx.ASGITransport(app=service.app)
        async with httpx.AsyncClient(transport=transport) as http:
            client = openai.AsyncOpenAI(base_url="http://server/v1", api_key="none", http_client=http)
            return await client.embeddings.create(model="vectors", input=TEXTS, **more)

    answer = service.thread.wait(ask())
    assert np.allclose([row.embedding for row in answer.data], predictor.embed(TEXTS), atol=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    short = service.thread.wait(ask(dimensions=2, encoding_format="float", extra_body={"prompt_name": "document"}))
    assert np.allclose(
        [row.embedding for row in short.data], predictor.embed(TEXTS, prompt="document", dimensions=2), atol=1e-5
    )
    with pytest.raises(openai.NotFoundError, match="There is no model"):
        service.thread.wait(ask(extra_body={"model": "none"}))


def test_classify_gives_vectors_too(service, predictor):
    (prediction,) = service.classify({"text": TEXTS[0], "model": "vectors"}).json()["predictions"]
    assert np.allclose(prediction["embedding"], predictor.embed(TEXTS[:1])[0], atol=1e-5)
    assert prediction["truncated"] is False


def test_embed_in_each_precision(predictor):
    vectors = predictor.embed(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((2, 3), np.float32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert predictor.embed(TEXTS, precision="int8").dtype == np.int8
    assert predictor.embed(TEXTS, precision="binary").shape == (2, 1)
    assert json.dumps(predictor.predict_one(TEXTS[0]).plain)
