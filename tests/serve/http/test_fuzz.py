"""Any bytes at all: the parsers raise nothing but their refusals, and the server never answers 500."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.heads import open_head
from edgetune.serve.http import binary
from edgetune.serve.http.classify import read_request
from edgetune.serve.http.errors import Refused
from edgetune.serve.http.inference import ID_INPUTS, Question, output_tensors, read_question

HEAD = open_head(HeadSpec(kind="label", labels=["account", "delivery", "payment"]))
OUTPUTS = output_tensors(HEAD)
KINDS = st.sampled_from([("text",), ("text", "text_pair")])

parsing = settings(max_examples=200, deadline=None)
asking = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.integers() | st.integers(-2, 90) | st.sampled_from([2**31, 2**53, 2**63, 2**64, -(2**63), 10**400])
scalars = st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
parameters = st.none() | st.dictionaries(
    st.sampled_from(["binary_data_size", "content_type", "binary_data", "binary_data_output", "other"]),
    numbers | st.booleans() | st.sampled_from(["str", "base64", "np", ""]) | values,
    max_size=3,
)


def mostly(likely: st.SearchStrategy, anything: st.SearchStrategy = values) -> st.SearchStrategy:
    """What is expected four times of five, so that faults come one at a time as well as together."""
    return st.one_of(likely, likely, likely, likely, anything)


small = st.integers(0, 4)
matrix = st.lists(st.lists(st.integers(-1, 90), max_size=4), max_size=4)
flat = st.lists(st.integers(-1, 90), max_size=12)
tensors = st.fixed_dictionaries(
    {
        "name": mostly(st.sampled_from(["text", "text_pair", *ID_INPUTS])),
        "shape": mostly(st.lists(small, min_size=1, max_size=2), st.lists(numbers, max_size=5) | values),
        "datatype": mostly(st.sampled_from(["BYTES", "INT64", "INT32", "FP32"])),
    },
    optional={
        "data": mostly(matrix | flat | st.lists(st.text(max_size=6), max_size=4)),
        "parameters": mostly(parameters),
    },
)


@st.composite
def pairs_of_ids(draw):
    """Rows of ids that agree in shape, so that what is wrong is found late or not at all."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    wanted = draw(st.sampled_from([ID_INPUTS[:2], ID_INPUTS]))
    highest = {"input_ids": 86, "attention_mask": 1, "token_type_ids": 2}
    return [
        {
            "name": name,
            "shape": [rows, width],
            "datatype": draw(st.sampled_from(["INT64", "INT32"])),
            "data": draw(st.lists(st.integers(0, highest[name]), min_size=rows * width, max_size=rows * width)),
        }
        for name in wanted
    ]


questions = st.fixed_dictionaries(
    {"inputs": mostly(st.lists(tensors, max_size=3) | pairs_of_ids())},
    optional={
        "id": mostly(st.text(max_size=8)),
        "parameters": mostly(parameters),
        "outputs": mostly(
            st.lists(st.fixed_dictionaries({"name": mostly(st.sampled_from(list(OUTPUTS)))}), max_size=3)
        ),
    },
)


def as_body(value: object) -> bytes:
    """JSON as a careless client writes it: NaN, giants and unpaired surrogates included."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


bodies = st.binary(max_size=200) | values.map(as_body) | questions.map(as_body)
headers = st.none() | st.integers(0, 300) | st.integers()


def unless_refused(read: Callable[[], Any]) -> Any:
    """What `read` gives, None where it refuses with 400; anything else that it raises fails the test."""
    try:
        return read()
    except Refused as error:
        refused = error
    assert refused.status == 400
    return None


def understood(body: bytes, told: object, parts: tuple[str, ...]) -> Question | None:
    header = None if told is None else str(told)
    return unless_refused(lambda: read_question(body, binary.header_length(header, len(body)), parts, HEAD))


@given(bodies, headers, KINDS)
@example(b"[" * 5000, None, ("text",))
@example(b'{"inputs":' * 5000, None, ("text",))
@example(b"\xed\xa0\x80", 0, ("text",))
@parsing
def test_the_parser_of_version_2_refuses_or_understands(body, told, parts):
    question = understood(body, told, parts)
    assert question is None or (question.inputs is None) != (question.rows is None)
    assert question is None or question.outputs.keys() <= OUTPUTS.keys()


@given(questions, st.binary(max_size=80), KINDS)
@parsing
def test_binary_tensors_are_refused_or_understood(question, blob, parts):
    head = as_body(question)
    understood(head + blob, len(head), parts)


@given(st.binary(max_size=120), st.integers(0, 10))
@parsing
def test_elements_are_refused_or_whole(raw, count):
    elements = unless_refused(lambda: binary.read_elements(memoryview(raw), count, "x"))
    if elements is None:
        return
    assert len(elements) == count
    assert b"".join(struct.pack("<I", len(each)) + each for each in elements) == raw


@given(st.lists(st.text(), max_size=5))
@parsing
def test_what_is_written_is_read_again(texts):
    texts = [text for text in texts if text.isascii() or text.encode("utf-8", "ignore").decode() == text]
    raw = binary.write_elements(texts)
    assert [each.decode() for each in binary.read_elements(memoryview(raw), len(texts), "x")] == texts


@given(
    st.binary(max_size=200)
    | values.map(as_body)
    | st.dictionaries(st.sampled_from(["text", "text_pair", "texts", "top", "model"]), values).map(as_body)
)
@parsing
def test_the_parser_for_people_refuses_or_understands(body):
    understood_request = unless_refused(lambda: read_request(body))
    if understood_request is None:
        return
    request, inputs = understood_request
    assert (request.text is None) != (request.texts is None)
    assert all(isinstance(text, str) for given in inputs for text in ([given] if isinstance(given, str) else given))


def answered(answer) -> None:
    """Never 500, and every refusal in the protocol's form."""
    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code == 200:
        assert answer.json()["outputs"] or answer.json()["predictions"]
    else:
        assert list(answer.json()) == ["error"]


@given(bodies | pairs_of_ids().map(lambda inputs: as_body({"inputs": inputs})))
@asking
def test_the_server_answers_any_question_or_says_why_not(service, body):
    answered(service.infer(body))


@given(st.text(max_size=60))
@example("\ud800")
@example("\x00")
@example("‮ \U000e0001 ﷽ 👩‍👩‍👧")
@asking
def test_any_text_is_answered_or_refused(service, text):
    answer = service.infer(as_body({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]}))
    answered(answer)
    valid = text.encode("utf-8", "ignore").decode() == text
    assert (answer.status_code == 200) == (valid and bool(text.strip()) and "\0" not in text)
