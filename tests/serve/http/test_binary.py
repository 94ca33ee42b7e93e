"""The binary tensor data extension: raw bytes in, raw bytes out, and lengths that lie are refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.serve import load
from edgetune.serve.http import binary
from edgetune.serve.http.errors import Refused

PREDICTOR = load(Path(__file__).parent.parent.parent / "golden" / "bundle-v1")
GOLDEN = PREDICTOR.bundle.golden()
TEXTS = [case.text for case in GOLDEN.cases]
LABELS = [case.label for case in GOLDEN.cases]
LOGITS = np.array([case.logits for case in GOLDEN.cases], dtype=np.float32)


def packed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def tensor(name: str, datatype: str, shape: list[int], size: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def ask(service: Any, question: dict[str, Any], *blobs: bytes, header: object = None) -> Any:
    """`header` stands for the right length of the JSON part unless a test wants another."""
    head = json.dumps(question).encode()
    length = str(len(head) if header is None else header)
    return service.infer(b"".join((head, *blobs)), {"inference-header-content-length": length})


def opened(answer: Any) -> tuple[dict[str, dict[str, Any]], dict[str, bytes]]:
    """The outputs by name, and the bytes of each that came in binary."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    place = int(answer.headers["inference-header-content-length"])
    outputs = {output["name"]: output for output in json.loads(answer.content[:place])["outputs"]}
    blobs = {}
    for name, output in outputs.items():
        if "data" not in output:
            size = output["parameters"]["binary_data_size"]
            blobs[name] = answer.content[place : place + size]
            place += size
    assert place == len(answer.content)
    return outputs, blobs


def test_texts_in_binary_are_answered_in_json(service):
    blob = packed(*(text.encode() for text in TEXTS))
    answer = ask(service, {"inputs": [tensor("text", "BYTES", [len(TEXTS)], len(blob))]}, blob)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["outputs"][0]["data"] == LABELS


def test_all_outputs_in_binary(service):
    names = ["label", "score", "truncated", "logits"]
    question = {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}],
        "outputs": [{"name": name} for name in names],
        "parameters": {"binary_data_output": True},
    }
    outputs, blobs = opened(service.infer(question))
    assert list(blobs) == names
    assert binary.read_elements(memoryview(blobs["label"]), len(TEXTS), "label") == [label.encode() for label in LABELS]
    logits = np.frombuffer(blobs["logits"], "<f4").reshape(outputs["logits"]["shape"])
    assert np.abs(logits - LOGITS).max() < GOLDEN.tolerance
    assert np.frombuffer(blobs["score"], "<f4").shape == (len(TEXTS),)
    assert blobs["truncated"] == bytes(len(TEXTS))


def test_the_word_of_one_output_goes_over_that_of_all(service):
    question = {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": TEXTS[:1]}],
        "outputs": [{"name": "label", "parameters": {"binary_data": False}}, {"name": "score"}],
        "parameters": {"binary_data_output": True},
    }
    outputs, blobs = opened(service.infer(question))
    assert outputs["label"]["data"] == LABELS[:1]
    assert list(blobs) == ["score"]


@pytest.mark.parametrize("datatype", ["INT64", "INT32"])
def test_ids_in_binary_become_logits_in_binary(service, datatype):
    width = max(len(case.input_ids) for case in GOLDEN.cases)
    ids = np.array([case.input_ids + [0] * (width - len(case.input_ids)) for case in GOLDEN.cases])
    mask = np.array([[1] * len(case.input_ids) + [0] * (width - len(case.input_ids)) for case in GOLDEN.cases])
    dtype = {"INT64": "<i8", "INT32": "<i4"}[datatype]
    blobs = {"input_ids": ids.astype(dtype).tobytes(), "attention_mask": mask.astype(dtype).tobytes()}
    question = {
        "inputs": [tensor(name, datatype, list(ids.shape), len(blob)) for name, blob in blobs.items()],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
    }
    _, raw = opened(ask(service, question, *blobs.values()))
    logits = np.frombuffer(raw["logits"], "<f4").reshape(LOGITS.shape)
    assert np.abs(logits - LOGITS).max() < GOLDEN.tolerance


def test_a_raw_body_is_one_text(service):
    answer = service.infer(TEXTS[0].encode(), {"inference-header-content-length": "0"})
    assert answer.json()["outputs"][0]["data"] == LABELS[:1]
    assert service.infer(b"\xff", {"inference-header-content-length": "0"}).status_code == 400
    told_twice = {"inference-header-content-length": "0", "content-type": "application/json"}
    assert service.infer(b"{}", told_twice).status_code == 400


GOOD = packed(b"card", b"money")
MALFORMED = {
    "a header past the body": ([tensor("text", "BYTES", [2], len(GOOD))], GOOD, 10_000),
    "a header that is no number": ([tensor("text", "BYTES", [2], len(GOOD))], GOOD, "-1"),
    "a header of thousands of digits": ([tensor("text", "BYTES", [2], len(GOOD))], GOOD, "1" * 5000),
    "a header within the JSON": ([tensor("text", "BYTES", [2], len(GOOD))], GOOD, 20),
    "a size past the end": ([tensor("text", "BYTES", [2], len(GOOD) + 1)], GOOD, None),
    "a size of giants": ([tensor("text", "BYTES", [2], 2**63)], GOOD, None),
    "a negative size": ([tensor("text", "BYTES", [2], -1)], GOOD, None),
    "a size that is true": ([tensor("text", "BYTES", [1], True)], b"a", None),
    "a size of text": ([tensor("text", "BYTES", [2], "17")], GOOD, None),
    "bytes left over": ([tensor("text", "BYTES", [2], len(GOOD))], GOOD + b"x", None),
    "data besides": ([tensor("text", "BYTES", [1], 5) | {"data": ["a"]}], packed(b"a"), None),
    "fewer elements": ([tensor("text", "BYTES", [3], len(GOOD))], GOOD, None),
    "more elements": ([tensor("text", "BYTES", [1], len(GOOD))], GOOD, None),
    "an element past the end": ([tensor("text", "BYTES", [1], 6)], struct.pack("<I", 99) + b"ab", None),
    "half a length": ([tensor("text", "BYTES", [2], 7)], packed(b"a") + b"\0\0", None),
    "no UTF-8": ([tensor("text", "BYTES", [1], 6)], packed(b"\xff\xfe"), None),
    "half a number": (
        [tensor("input_ids", "INT64", [1, 1], 7), tensor("attention_mask", "INT64", [1, 1], 8)],
        bytes(15),
        None,
    ),
    "half floats": (
        [tensor("input_ids", "FP16", [1, 1], 2), tensor("attention_mask", "INT64", [1, 1], 8)],
        bytes(10),
        None,
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_lengths_that_lie_are_refused(service, name):
    inputs, blob, header = MALFORMED[name]
    answer = ask(service, {"inputs": inputs}, blob, header=header)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_without_the_header_all_is_json(service):
    question = json.dumps({"inputs": [tensor("text", "BYTES", [2], len(GOOD))]}).encode()
    assert service.infer(question + GOOD).status_code == 400
    assert "are left behind the JSON" in service.infer(question).json()["error"]


def test_elements_are_written_as_they_are_read():
    texts = ["", "a", "ä€😀", "x" * 70_000]
    raw = memoryview(binary.write_elements(texts))
    assert [each.decode() for each in binary.read_elements(raw, 4, "x")] == texts
    with pytest.raises(Refused, match="holds 4 elements, its shape 5"):
        binary.read_elements(raw, 5, "x")


def test_a_flood_of_empty_elements_stops_at_the_shape():
    with pytest.raises(Refused, match="holds more elements"):
        binary.read_elements(memoryview(bytes(4 * 1_000_000)), 3, "x")
