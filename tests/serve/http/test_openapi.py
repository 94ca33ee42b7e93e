"""The server holds to its own description: every route in it, and a fuzzing client finds no answer that it lacks."""

from __future__ import annotations

import re

import pytest
import schemathesis

from edgetune.serve.http.settings import ServerSettings

# What no JSON schema can say (a tensor is as large as its shape, a chat has a user) is refused though it allows it.
UNSAYABLE = {"infer", "infer_version", "chat", "complete", "embeddings", "extract"}


def test_every_route_is_described(service):
    description = service.get("/openapi.json").json()
    assert description["openapi"] == "3.1.0"
    described = {(path, method.upper()) for path, methods in description["paths"].items() for method in methods}
    routes = {(route.path, method) for route in service.app.routes for method in route.methods - {"HEAD"}}
    assert described == routes


def test_every_reference_leads_somewhere(service):
    answer = service.get("/openapi.json")
    names = set(re.findall(r"#/components/schemas/(\w+)", answer.text))
    assert names == set(answer.json()["components"]["schemas"])


def test_the_limits_and_the_keys_are_those_of_the_server(make_service, tmp_path):
    from edgetune.serve.http.keys import Keys

    (tmp_path / "keys").write_text("secret-key-of-this-test-0123456789\n")
    service = make_service(ServerSettings(watch_seconds=0, max_texts=7), keys=Keys.open(tmp_path / "keys"))
    assert service.get("/openapi.json").status_code == 401
    service.headers = {"x-api-key": "secret-key-of-this-test-0123456789"}
    description = service.get("/openapi.json").json()
    assert description["components"]["schemas"]["ClassifyRequest"]["oneOf"][1]["properties"]["texts"]["maxItems"] == 7
    assert description["security"] == [{"bearer": []}, {"key": []}]
    assert "401" in description["paths"]["/v1/classify"]["post"]["responses"]
    assert description["paths"]["/metrics"]["get"]["security"] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
def test_the_server_answers_as_it_describes_itself(make_service, complaints, seed):
    service = make_service()  # one of its own: the client runs its lifespan, which closes it
    settings = {
        "seed": seed,
        "generation": {"max-examples": 10},
        "parameters": {"path.name": "golden", "path.version": "1"},
        "operations": [
            {"include-operation-id": name, "checks": {"positive_data_acceptance": {"enabled": False}}}
            for name in UNSAYABLE
        ],
    }
    config = schemathesis.config.SchemathesisConfig.from_dict(settings)
    found, requests = complaints(schemathesis.openapi.from_asgi("/openapi.json", service.app, config=config))
    assert found == []
    assert requests > 500
    answered = 'edgetune_requests_total{model="golden",route="%s",status="200"}'
    assert service.metric(answered % "classify") > 0
    assert service.metric('edgetune_requests_total{model="golden",route="infer",status="400"}') > 0
