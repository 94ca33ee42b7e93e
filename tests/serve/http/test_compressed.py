"""Compressed bodies, as tritonclient and many HTTP libraries send them: answered, and bounded by what they become."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from edgetune.serve.http.settings import ServerSettings

BODY = json.dumps({"texts": ["where is my parcel", "card"]}).encode()


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("GZIP", gzip.compress(BODY, mtime=0)),
        ("x-gzip", gzip.compress(BODY, mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
    ],
)
def test_a_compressed_body_is_answered_as_the_body_itself(service, encoding, content):
    answer = service.post("/v1/classify", content, {"content-encoding": encoding})
    assert answer.status_code == 200
    assert answer.json() == service.post("/v1/classify", BODY).json()


def test_an_inference_request_is_decompressed_before_its_parts_are_told_apart(service):
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [tensor]}).encode()
    body = gzip.compress(head + len(b"card").to_bytes(4, "little") + b"card")
    headers = {"content-encoding": "gzip", "inference-header-content-length": str(len(head))}
    assert service.infer(body, headers).status_code == 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BODY, "cannot be decompressed"),
        (b"", "ends too early"),
        (gzip.compress(BODY, mtime=0)[:-4], "ends too early"),
        (gzip.compress(BODY, mtime=0)[:20] + b"\0" * 20, "cannot be decompressed"),
        (gzip.compress(BODY, mtime=0) + b"more", "behind the end"),
        (gzip.compress(BODY, mtime=0) * 2, "behind the end"),
    ],
)
def test_what_is_not_compressed_so_is_refused(service, content, said):
    answer = service.post("/v1/classify", content, {"content-encoding": "gzip"})
    assert answer.status_code == 400
    assert said in answer.json()["error"]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_other_encodings_are_refused_by_name(service, encoding):
    answer = service.post("/v1/classify", gzip.compress(BODY, mtime=0), {"content-encoding": encoding})
    assert answer.status_code == 415
    assert f"{encoding!r}" in answer.json()["error"]


def test_a_body_that_becomes_too_large_is_never_made(make_service):
    service = make_service(ServerSettings(watch_seconds=0, max_body_bytes=100_000))
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    answer = service.post("/v1/classify", bomb, {"content-encoding": "gzip"})
    assert answer.status_code == 413
    just = json.dumps({"text": "card"}).encode().ljust(100_000)
    assert service.post("/v1/classify", gzip.compress(just, mtime=0), {"content-encoding": "gzip"}).status_code == 200
    assert service.post("/v1/classify", gzip.compress(just + b" "), {"content-encoding": "gzip"}).status_code == 413


async def _pieces(content: bytes):
    for place in range(len(content)):
        yield content[place : place + 1]


def test_a_compressed_body_may_come_in_any_pieces(service):
    answer = service.post("/v1/classify", _pieces(gzip.compress(BODY, mtime=0)), {"content-encoding": "gzip"})
    assert answer.json() == service.post("/v1/classify", BODY).json()
