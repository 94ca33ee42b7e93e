"""Pages of other sites: the name that a request was sent to, and what CORS lets them read."""

from __future__ import annotations

import httpx
import pytest

from edgetune.serve.http.browsers import PREFLIGHT_SECONDS
from edgetune.serve.http.settings import ServerSettings

PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-api-key"}


@pytest.fixture(scope="module")
def guarded_by_name(make_service):
    return make_service(ServerSettings(watch_seconds=0, allow_host=("127.0.0.1", "models.example.org")))


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:8080", "10.1.2.3:80", "[::1]:8080", "[fe80::1%25eth0]", "localhost"),
        *("LOCALHOST:8080", "app.localhost", "models", "models.example.org", "Models.Example.Org.:8080"),
    ],
)
def test_names_of_this_server_may_be_asked(guarded_by_name, host):
    answer = guarded_by_name.post("/v1/classify", {"text": "where is my parcel"}, {"host": host})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"],
)
@pytest.mark.parametrize("path", ["/v1/classify", "/v1/chat/completions", "/v2/health/ready", "/metrics", "/"])
def test_other_names_are_refused_on_all_routes(guarded_by_name, host, path):
    for method in ("GET", "POST", "OPTIONS"):
        answer = guarded_by_name.ask(method, path, None, {"host": host})
        assert answer.status_code == 403
        assert "--allow-host" in answer.text


def test_where_no_names_are_given_every_name_may_be_asked(service):
    assert service.ask("GET", "/v2", None, {"host": "evil.example"}).status_code == 200


@pytest.fixture(scope="module")
def shared(make_service):
    return make_service(ServerSettings(watch_seconds=0, allow_origin=("https://a.example", "http://b.example:8")))


@pytest.mark.parametrize("origin", ["https://a.example", "http://b.example:8"])
def test_an_allowed_origin_may_read_every_answer(shared, origin):
    for path, body, status in (
        ("/v1/classify", {"text": "where is my parcel"}, 200),
        ("/v1/classify", {"text": ""}, 422),
        ("/nowhere", {}, 404),
        ("/v1/chat/completions", {}, 400),
    ):
        answer = shared.post(path, body, {"origin": origin})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "origin"
        assert "x-request-id" in answer.headers["access-control-expose-headers"]


def test_a_preflight_is_answered_before_a_key_is_asked_for(make_service, tmp_path):
    from edgetune.serve.http.keys import Keys

    (tmp_path / "keys").write_text("a-key\n")
    settings = ServerSettings(watch_seconds=0, allow_origin=("https://a.example",))
    service = make_service(settings, keys=Keys.open(tmp_path / "keys"))
    answer = service.ask("OPTIONS", "/v1/classify", None, {"origin": "https://a.example", **PREFLIGHT})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert answer.headers["access-control-allow-methods"] == "GET, POST"
    assert answer.headers["access-control-allow-headers"] == "content-type,x-api-key"
    assert answer.headers["access-control-max-age"] == str(PREFLIGHT_SECONDS)
    asked = service.post("/v1/classify", {"text": "card"}, {"origin": "https://a.example"})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (401, "https://a.example")
    strange = service.ask("OPTIONS", "/v1/classify", None, {"origin": "https://c.example", **PREFLIGHT})
    assert strange.status_code == 401


@pytest.mark.parametrize(
    "origin", ["https://c.example", "https://a.example:8", "https://a.example.c.example", "null", ""]
)
def test_another_origin_reads_nothing(shared, origin):
    for method in ("POST", "OPTIONS"):
        answer = shared.ask(method, "/v1/classify", {"text": "card"}, {"origin": origin, **PREFLIGHT})
        assert answer.status_code != 204
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_star_is_every_origin_and_no_setting_is_none(make_service, service):
    everybody = make_service(ServerSettings(watch_seconds=0, allow_origin=("*",)))
    answer = everybody.post("/v1/classify", {"text": "card"}, {"origin": "https://c.example"})
    assert answer.headers["access-control-allow-origin"] == "https://c.example"
    without = service.post("/v1/classify", {"text": "card"}, {"origin": "https://c.example"})
    assert not any(name.startswith(("access-control", "vary")) for name in without.headers)


def test_strange_headers_of_a_preflight_are_not_repeated(shared):
    strange = {**PREFLIGHT, "access-control-request-headers": "x\ty(z)"}
    answer = shared.ask("OPTIONS", "/v1/classify", None, {"origin": "https://a.example", **strange})
    assert isinstance(answer, httpx.Response)
    assert answer.headers["access-control-allow-headers"].startswith("authorization, content-type")
