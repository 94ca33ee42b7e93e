"""Unsure answers over HTTP: the plain route, the tensor, metadata, page and description, and what cannot be unsure."""

from __future__ import annotations

import pytest

from edgetune.serve import load
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.http.opening import open_proven
from edgetune.serve.http.settings import ServerSettings

TEXTS = ["where is my parcel", "i forgot my password", "card"]


@pytest.fixture(scope="module")
def below(kind_bundle):
    """A probability that some of `TEXTS` are below and some are not."""
    first, *_, last = sorted(answer.score for answer in load(kind_bundle("label"), threads=1).predict(TEXTS))
    assert last - first > 1e-4
    return (first + last) / 2


@pytest.fixture(scope="module")
def service(make_service, kind_bundle, below):
    settings = ServerSettings(watch_seconds=0, abstain_below=below)
    return make_service(settings, sources={"golden": kind_bundle("label")})


@pytest.fixture(scope="module")
def expected(kind_bundle, below):
    answers = load(kind_bundle("label"), threads=1).predict(TEXTS)
    return [(answer.label, answer.score < below) for answer in answers]


def test_the_plain_route(service, expected):
    answers = service.classify({"texts": TEXTS}).json()["predictions"]
    assert [(answer["label"], answer["unsure"]) for answer in answers] == expected


def test_the_tensor(service, expected):
    body = {"inputs": [{"name": "text", "shape": [len(TEXTS)], "datatype": "BYTES", "data": TEXTS}]}
    outputs = {output["name"]: output for output in service.infer(body).json()["outputs"]}
    assert list(outputs) == ["label", "score", "unsure"]
    assert outputs["unsure"] == {
        "name": "unsure",
        "datatype": "BOOL",
        "shape": [len(TEXTS)],
        "data": [unsure for _, unsure in expected],
    }


def test_what_the_server_says_of_it(service, below):
    outputs = {output["name"]: output for output in service.get("/v2/models/golden").json()["outputs"]}
    assert (outputs["unsure"]["datatype"], outputs["unsure"]["shape"]) == ("BOOL", [-1])
    triton = {
        output["name"]: output["data_type"] for output in service.get("/v2/models/golden/config").json()["output"]
    }
    assert triton["unsure"] == "TYPE_BOOL"
    assert f"unsure below {below:.4g}" in service.get("/").text
    (schema,) = service.get("/openapi.json").json()["components"]["schemas"]["Prediction"]["anyOf"]
    assert "unsure" in schema["required"]


@pytest.mark.parametrize("kind", ["labels", "number"])
def test_what_is_never_unsure_is_not_opened(kind_bundle, kind):
    settings = ServerSettings(watch_seconds=0, abstain_below=0.5)
    with pytest.raises(EdgetuneError, match=f"of the kind '{kind}', which is never unsure"):
        open_proven(kind_bundle(kind), settings)
