"""The server's description of these routes, and a fuzzing client that finds no answer beside it."""

from __future__ import annotations

import httpx
import pytest
import schemathesis

ROUTES = {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/{name}"}


def test_the_routes_are_described_with_their_errors(server):
    description = server.get("/openapi.json").json()
    assert set(description["paths"]) >= ROUTES
    chat = description["paths"]["/v1/chat/completions"]["post"]
    assert set(chat["responses"]) == {"200", "400", "404", "408", "413", "415", "429", "500", "503"}
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    for status, answer in chat["responses"].items():
        if status != "200":
            assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/OpenAIError"}
    chat = description["components"]["schemas"]["ChatRequest"]
    assert chat["required"] == ["messages"]
    assert chat["additionalProperties"] is False
    assert "/v1/chat/completions" in server.get("/docs").text


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
def test_the_server_answers_as_it_describes_itself(run_server, eventually, complaints, seed):
    server = run_server(max_answer_tokens=4)
    config = schemathesis.config.SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "generation": {"max-examples": 25},
            "parameters": {"path.name": "tiny"},
            # What no schema says: a chat has a turn of the user's, and what is not supported.
            "checks": {"positive_data_acceptance": {"enabled": False}},
        }
    )
    document = httpx.get(server.url + "/openapi.json", verify=False).json()
    document["paths"] = {path: methods for path, methods in document["paths"].items() if path in ROUTES}
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.config.update(base_url=server.url)
    found, requests = complaints(schema)
    assert found == []
    assert requests > 100
    eventually(lambda: server.scheduler.running == 0)
