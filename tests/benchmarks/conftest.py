"""Reading of a report's page as its tests need it, and a tiny random llama beside its graphs in fp32 and int4."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 300,
    "max_position_embeddings": 128,
    # Trained weights are larger than the usual 0.02: with it the likeliest tokens nearly tie.
    "initializer_range": 0.3,
}

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


@pytest.fixture(scope="session")
def tiny_family(shared_folder: Callable[..., Path]) -> Path:
    """A folder with artefacts.json, the model and two graphs; not to be changed."""
    from benchmarks.lab.language.artefacts import STEPS, make

    return shared_folder("tiny-family", lambda folder: make("Llama", TINY, folder, STEPS[:2]))
