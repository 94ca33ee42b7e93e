"""Pictures over HTTP: in base64, as a file, in a form, as a tensor; what is refused; and the page to drop one on."""

from __future__ import annotations

import base64
import re

import pytest

from edgetune.serve.http.settings import ServerSettings
from tests.golden.pictures import picture_bytes

BOUNDARY = "a-b"


@pytest.fixture(scope="module")
def service(make_service, picture_bundle):
    return make_service(ServerSettings(max_texts=4), sources={"golden": picture_bundle})


def base64_of(colour):
    return base64.b64encode(picture_bytes(colour)).decode()


def form(*files, boundary=BOUNDARY, fields=()):
    head = f"--{boundary}\r\nContent-Disposition: form-data; name="
    parts = [f'{head}"{name}"\r\n\r\nx\r\n'.encode() for name in fields]
    file_head = f'{head}"image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'.encode()
    parts += [file_head + content + b"\r\n" for content in files]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])


def labels(answer):
    assert answer.status_code == 200, answer.text
    return [each["label"] for each in answer.json()["predictions"]]


def sent(service, content, kind, query=""):
    return service.post("/v1/classify" + query, content, {"content-type": kind})


def test_base64_by_each_member(service):
    assert labels(service.classify({"image": base64_of("red")})) == ["red"]
    assert labels(service.classify({"images": [base64_of("green"), base64_of("blue")]})) == ["green", "blue"]
    assert labels(service.classify({"text": base64_of("blue")})) == ["blue"]
    answer = service.classify({"image": "data:image/png;base64," + base64_of("red"), "top": 2})
    assert list(answer.json()["predictions"][0]["scores"]) == ["red", "green"]


def test_a_file_and_a_form_of_files(service):
    assert labels(sent(service, picture_bytes("green"), "image/png")) == ["green"]
    assert labels(sent(service, picture_bytes("green", "JPEG"), "image/jpeg", "?top=1&model=golden")) == ["green"]
    body = form(picture_bytes("red"), picture_bytes("blue"), fields=["note"])
    assert labels(sent(service, body, f"multipart/form-data; boundary={BOUNDARY}")) == ["red", "blue"]
    assert labels(sent(service, body, f'multipart/form-data; charset=x; boundary="{BOUNDARY}"')) == ["red", "blue"]


def test_tensors_hold_base64(service):
    metadata = service.get("/v2/models/golden").json()
    assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"]] == [
        ("image", "BYTES", [-1])
    ]
    data = [base64_of("red"), base64_of("green")]
    answer = service.infer({"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": data}]})
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert outputs["label"] == ["red", "green"]
    assert [entry["name"] for entry in service.get("/v2/models/golden/config").json()["input"]] == ["image"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"image": "photo.jpg"}, 422, "Picture 0 is a text that is no base64"),
        ({"image": ""}, 422, "Picture 0 is no picture that can be read"),
        ({"images": []}, 422, "There are no pictures"),
        ({"images": [""] * 5}, 422, "There are 5 pictures"),
        ({"image": "a", "text": "b"}, 400, "The body has text and image"),
        ({"image": 3}, 400, "Expected `str"),
    ],
)
def test_what_is_refused_in_json(service, body, status, words):
    answer = service.classify(body)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("content", "kind", "query", "status", "words"),
    [
        (b"%PDF", "image/png", "", 422, "Picture 0 is no picture that can be read"),
        (picture_bytes("red"), "image/png", "?best=3", 400, "There is no key 'best'"),
        (picture_bytes("red"), "image/png", "?top=zero", 400, "top is 'zero'"),
        (picture_bytes("red"), "image/png", "?top=0", 400, "top is 0"),
        (form(), f"multipart/form-data; boundary={BOUNDARY}", "", 400, "The form is not whole"),
        (form(fields=["a"]), f"multipart/form-data; boundary={BOUNDARY}", "", 400, "The form holds no file"),
        (form(b"x")[:-8], f"multipart/form-data; boundary={BOUNDARY}", "", 400, "The form is not whole"),
        (form(b"x"), "multipart/form-data", "", 400, "The form names no boundary"),
        (b"{}", "text/csv", "", 415, "The body is of type text/csv"),
    ],
)
def test_what_is_refused_as_a_file(service, content, kind, query, status, words):
    answer = sent(service, content, kind, query)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_a_model_of_texts_takes_no_file(make_service):
    answer = sent(make_service(), picture_bytes("red"), "image/png")
    assert answer.status_code == 400
    assert "The model 'golden' answers no pictures" in answer.json()["error"]


def test_other_routes_take_json_alone(service):
    answer = service.post("/v2/models/golden/infer", picture_bytes("red"), {"content-type": "image/png"})
    assert answer.status_code == 415


def test_the_page_has_a_place_to_drop_a_picture_and_runs_nothing_else(service):
    answer = service.get("/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe-eval" not in policy
    assert re.findall(r"<script[^>]*>", answer.text) == ['<script src="/try.js" defer>']
    assert '<form data-ask="golden" data-ranked=1>' in answer.text
    assert 'type="file"' in answer.text
    assert "curl" in answer.text
    assert "/v1/classify -F image=@photo.jpg" in answer.text
    assert "<dt>input</dt><dd>a picture</dd>" in answer.text
    script = service.get("/try.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "http" not in script.text  # it asks nobody but the server that it came from


def test_the_page_of_texts_has_a_field_for_each(make_service, kind_bundle):
    page = make_service(sources={"golden": kind_bundle("label", "text-pair")}).get("/").text
    assert re.findall(r'<textarea name="(\w+)"', page) == ["text", "text_pair"]
    assert 'type="file"' not in page


def test_the_page_asks_what_the_server_understands(service):
    """What the script sends, sent here: a form to the route with model and top in the address."""
    body = form(picture_bytes("blue"))
    answer = sent(service, body, f"multipart/form-data; boundary={BOUNDARY}", "?model=golden&top=5")
    (given,) = answer.json()["predictions"]
    assert list(given["scores"]) == ["blue", "green", "red"]
