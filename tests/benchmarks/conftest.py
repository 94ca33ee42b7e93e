"""Reading of a report's page as its tests need it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Reads a page, keeps its visible text and its attributes, and fails on tags that do not balance."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str | None] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def check(page: Page) -> None:
    """What holds for every page: nothing fetched, nothing run, nothing unmeasured shown as a value."""
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    fetched = [v for name, v in page.attributes if name in ("src", "href", "srcset", "xlink:href", "data")]
    assert fetched == []
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert not re.search(r"\b(None|nan|NaN|inf)\b", page.text)
    for _, value in page.attributes:
        assert not re.search(r"\b(None|nan|NaN|inf)\b", value or "")


@pytest.fixture(scope="session")
def read_page() -> Callable[[str], Page]:
    """`read_page(source)` reads a page and asserts what holds for every one."""

    def read(source: str) -> Page:
        page = Page(source)
        check(page)
        return page

    return read
