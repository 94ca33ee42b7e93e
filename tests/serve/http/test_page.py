"""The pages for people: what is loaded with its figures, the report of its build, and nothing of a bundle unescaped."""

from __future__ import annotations

import hashlib
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

BUNDLE = Path(__file__).parent.parent.parent / "golden" / "bundle-v1"


class Page(HTMLParser):
    """Text, links and elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.elements: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        self.words.append(data)


def test_home_shows_the_bundle_with_its_own_figures(service):
    answer = service.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    report = json.loads((BUNDLE / "report.json").read_text())
    for words in (
        "golden",
        "ready",
        "CPUExecutionProvider",
        "one of 3 labels: account, delivery, payment",
        "fp32",
        "32 tokens",
    ):
        assert any(words in each for each in page.words), words
    assert any(report["machine"]["cpu"] in each for each in page.words)
    assert any(report["quality"]["metric"] in each for each in page.words)
    assert page.links == ["/models/golden/report", "/docs", "/openapi.json", "/metrics", "/v2/health/ready", "/try.js"]
    assert [service.get(link).status_code for link in page.links] == [200] * 6


def test_the_report_is_the_packed_file_and_may_run_nothing(service):
    answer = service.get("/models/golden/report")
    assert answer.content == (BUNDLE / "report.html").read_bytes()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/models/golden/report.html", "/models/golden/report/../manifest.json", "/models/golden/manifest.json"]
)
def test_no_other_file_of_the_bundle_is_served(service, path):
    assert service.get(path).status_code == 404


def test_what_a_bundle_says_of_itself_is_escaped(make_service, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLE, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["base"]["id"] = "<script>alert(1)</script>"
    manifest["name"] = '"><img src=x onerror=alert(1)>'
    del manifest["files"]["report.html"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    service = make_service(sources={"golden": folder})
    page = Page(service.get("/").text)
    assert "img" not in page.elements
    assert service.get("/").text.count("<script") == service.get("/").text.count('<script src="/try.js" defer>') == 1
    assert "<script>alert(1)</script>" in page.words
    assert "/models/golden/report" not in page.links
    assert service.get("/models/golden/report").status_code == 404


def test_a_report_that_has_gone_is_not_found(make_service, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLE, folder)
    service = make_service(sources={"golden": folder})
    digest = hashlib.sha256(service.get("/models/golden/report").content).hexdigest()
    assert digest == json.loads((BUNDLE / "manifest.json").read_text())["files"]["report.html"]["sha256"]
    (folder / "report.html").unlink()
    answer = service.get("/models/golden/report")
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


def test_a_model_that_was_unloaded_is_shown_as_such(make_service):
    service = make_service()
    service.thread.wait(service.repository.unload("golden"))
    page = Page(service.get("/").text)
    assert "unavailable" in page.words
    assert "/models/golden/report" not in page.links
    assert service.get("/v2/health/ready").json()["models"]["golden"]["providers"] == []
    assert service.classify({"text": "card"}).status_code == 503


def test_docs_list_every_route_without_a_script(service):
    page = Page(service.get("/docs").text)
    described = service.get("/openapi.json").json()["paths"]
    for path, methods in described.items():
        for method in methods:
            assert f"{method.upper()} {path}" in page.words
    assert not {"script", "link", "img", "iframe"} & page.elements
    assert all(link.startswith("/") for link in page.links)
