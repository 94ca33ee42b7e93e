"""What is counted, what is logged, and the ids that requests carry."""

from __future__ import annotations

import io
import json
import logging

import pytest

from edgetune.serve.batcher import BatchRun
from edgetune.serve.http import access
from edgetune.serve.http.metrics import Metrics


def test_requests_and_errors_are_counted_by_model_route_and_status(make_service):
    service = make_service()
    for text in ("card", "money"):
        service.classify({"text": text})
    service.infer({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [""]}]})
    service.post("/v2/models/nobody/infer", b"{}")
    service.get("/none")
    counted = {
        'edgetune_requests_total{model="golden",route="classify",status="200"}': 2,
        'edgetune_requests_total{model="golden",route="infer",status="422"}': 1,
        'edgetune_requests_total{model="",route="infer",status="404"}': 1,
        'edgetune_requests_total{model="",route="other",status="404"}': 1,
        'edgetune_errors_total{kind="unanswerable",model="golden",route="infer"}': 1,
        'edgetune_errors_total{kind="unknown",model="",route="infer"}': 1,
        'edgetune_texts_total{model="golden"}': 2,
        'edgetune_batch_texts_count{model="golden"}': 2,
        'edgetune_queue_texts{model="golden"}': 0,
        'edgetune_model_ready{model="golden"}': 1,
        "edgetune_requests_running": 0,
        "edgetune_body_bytes": 0,
    }
    assert {line: service.metric(line) for line in counted} == counted
    for stage, times in {"parse": 3, "tokenize": 2, "queue": 2, "run": 2, "total": 3}.items():
        assert service.metric(f'edgetune_stage_seconds_count{{model="golden",stage="{stage}"}}') == times
    page = service.get("/metrics")
    assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "nobody" not in page.text


def test_padding_is_counted_as_what_was_run_in_vain():
    metrics = Metrics()
    metrics.observe_run("x", BatchRun(texts=4, tokens=30, padded_tokens=40, waited_seconds=(0.2, 0.3), seconds=0.004))
    page = metrics.page().decode()
    for line in (
        'edgetune_tokens_total{kind="real",model="x"} 30.0',
        'edgetune_tokens_total{kind="padding",model="x"} 10.0',
        'edgetune_batch_texts_bucket{le="4.0",model="x"} 1.0',
        'edgetune_batch_texts_bucket{le="2.0",model="x"} 0.0',
        'edgetune_stage_seconds_sum{model="x",stage="queue"} 0.5',
        'edgetune_stage_seconds_bucket{le="0.005",model="x",stage="run"} 1.0',
    ):
        assert line in page


def test_guessed_and_accepted_tokens_are_counted_where_there_were_any():
    metrics = Metrics()
    metrics.observe_answer("x", prompt_tokens=3, answer_tokens=9)
    assert b'kind="guessed"' not in metrics.page()
    metrics.observe_answer("x", prompt_tokens=3, answer_tokens=9, guessed_tokens=8, accepted_tokens=5)
    page = metrics.page().decode()
    for kind, tokens in (("prompt", 6), ("answer", 18), ("guessed", 8), ("accepted", 5)):
        assert f'edgetune_generation_tokens_total{{kind="{kind}",model="x"}} {tokens}.0' in page


def test_two_servers_in_one_process_count_apart():
    first, second = Metrics(), Metrics()
    first.observe_request("x", "infer", 200, 0.001)
    assert 'edgetune_requests_total{model="x"' in first.page().decode()
    assert 'edgetune_requests_total{model="x"' not in second.page().decode()


@pytest.mark.parametrize("told", ["abc-123", "a" * 128, "0af7651916cd43dd8448eb211c80319c"])
def test_a_sane_request_id_is_given_back(service, told):
    assert service.ask("GET", "/v2", headers={"x-request-id": told}).headers["x-request-id"] == told


@pytest.mark.parametrize("told", ["", "a" * 129, "two words", "<script>", 'a"b', "ä".encode("latin-1")])
def test_any_other_request_id_is_replaced(service, told):
    answer = service.ask("GET", "/v2", headers={"x-request-id": told})
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-request-id"] != service.get("/v2").headers["x-request-id"]


def test_the_access_log_has_one_line_of_json_a_request(service):
    stream = io.StringIO()
    with access.access_log(stream):
        service.ask("POST", "/v1/classify", {"texts": ["card", "money"]}, {"x-request-id": "one"})
        service.ask("GET", "/a%0Ab", headers={"x-request-id": "two"})
    service.ask("GET", "/v2", headers={"x-request-id": "three"})
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert 0 < first.pop("ms") < 20_000
    assert first.pop("time").endswith("Z")
    assert first == {
        "method": "POST",
        "path": "/v1/classify",
        "status": 200,
        "texts": 2,
        "model": "golden",
        "request_id": "one",
        "client": "127.0.0.1",
    }
    assert (second["path"], second["status"], second["model"]) == ("/a\nb", 404, "")


def test_no_access_log_is_written_unless_opened(service, caplog):
    caplog.set_level(logging.INFO)  # of the root logger, as libraries set it too
    service.get("/v2/of-this-test")  # a server of another test may still be closing in its thread
    written = [record.getMessage() for record in caplog.records if record.name == "edgetune.access-log"]
    assert not any("of-this-test" in line for line in written)
