"""The pages of the documentation: links, navigation, and examples that are parsed against the live commands or run."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from edgetune.cli import root
from tests.untimed import untimed

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BUNDLE = ROOT / "tests" / "golden" / "bundle-v1"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
PAGES = sorted(
    [*DOCS.rglob("*.md"), *(ROOT / path for path in SITE["extra"]["pages"] if path.endswith(".md"))],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
# What was true when it was written; paths and keys in them may be gone.
HISTORY = {"CHANGELOG.md", "docs/log.md"}
LIVING = [page for page in PAGES if page.relative_to(ROOT).as_posix() not in HISTORY]
README_BYTES = 8_192
MARK = "<!-- example -->"
FENCE = re.compile(rf"^(?P<mark>{MARK}\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", text))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `marked` says that it is an example to be run."""

    page: Path
    language: str
    code: str
    marked: bool

    def __str__(self) -> str:
        return f"{name_of(self.page)}: {self.code.strip().splitlines()[0]}"


BLOCKS = [
    Block(page, match["language"], match["code"], match["mark"] is not None)
    for page in PAGES
    for match in FENCE.finditer(text_of(page))
]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def commands(code: str) -> Iterator[list[str]]:
    """The arguments of every `edgetune ...` in a block of shell lines, up to a pipe or a redirection."""
    for line in code.replace("\\\n", " ").splitlines():
        if shown := re.match(r"\s*(?:\.venv/bin/|accelerate launch -m )?edgetune (?=[a-z])(.*)", line):
            yield shlex.split(re.split(r" [|<>] ", shown[1])[0], comments=True)


COMMANDS = [(block, arguments) for block in BLOCKS if block.language != "python" for arguments in commands(block.code)]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Callable[[str], Path], toy_csv: Path) -> Path:
    """A folder to run examples in: the golden bundle under the names that the examples use, a tiny base, and rows."""
    for name in ("x", "banking77"):
        shutil.copytree(BUNDLE, tmp_path / "bundles" / name)
    # A folder goes before a package or a hub id of the same name.
    shutil.copytree(tiny_base("bert"), tmp_path / "sentence-transformers" / "all-MiniLM-L6-v2")
    shutil.copy(toy_csv, tmp_path / "tickets.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= README_BYTES


def test_every_mark_of_an_example_stands_before_a_block():
    marks = sum(text_of(page).splitlines().count(MARK) for page in PAGES)
    assert marks == sum(block.marked for block in BLOCKS) > 5


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them and the site does (docs/site_pages.py)."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", text_of(page)), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path):
    dead = []
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", without_code(text_of(page))):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_stay_inside_the_site(page: Path):
    """A page of the site links to other pages of it, or to what it carries along; other files are named as code."""
    outside = []
    for link in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", without_code(text_of(page))):
        target = (page.parent / link).resolve().relative_to(ROOT).as_posix()
        if target not in SITE["extra"]["pages"] and not target.startswith("docs/"):
            outside.append(link)
    assert outside == []


def nav_pages(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, list):
        for inner in entry:
            yield from nav_pages(inner)
    elif isinstance(entry, dict):
        yield from nav_pages(list(entry.values()))


def test_the_navigation_has_every_page_once():
    added = [page for page in SITE["extra"]["pages"].values() if page.endswith(".md")]
    assert sorted(nav_pages(SITE["nav"])) == sorted(
        [*added, *(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))]
    )


def test_the_site_adds_files_that_exist_and_hide_none():
    for source, page in SITE["extra"]["pages"].items():
        assert (ROOT / source).is_file()
        assert not (DOCS / page).exists()


@pytest.mark.parametrize(("block", "arguments"), COMMANDS, ids=lambda value: str(value)[:80])
def test_documented_commands_have_the_options_they_are_given(block: Block, arguments: list[str]):
    name, *rest = arguments
    command = root.get_command(click.Context(root), name)
    assert command is not None, f"{name_of(block.page)} names the command {name}"
    values, _, _ = command.make_parser(click.Context(command, info_name=name)).parse_args(rest)
    unknown = [setting for setting in values.get("settings") or [] if setting.partition("=")[0] not in recipe_keys()]
    assert unknown == []


def recipe_keys() -> set[str]:
    """Keys and sections of recipes, from the generated page that lists them."""
    keys = re.findall(r"^\| `([\w.]+)`", text_of(DOCS / "recipe.md"), re.MULTILINE)
    return {".".join(key.split(".")[:depth]) for key in keys for depth in range(1, key.count(".") + 2)}


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_named_recipe_keys_exist(page: Path):
    named = re.findall(
        r"`((?:data|tune|export|compress|gate|budget|benchmark|answer)\.[a-z][\w.]*)", FENCE.sub("", text_of(page))
    )
    assert sorted(key for key in set(named) - recipe_keys() if not key.endswith(".py")) == []


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_named_files_exist(page: Path):
    folders = "cli|serve|tune|compress|export|benchmarks|docs|tests|examples"
    named = set(re.findall(rf"`((?:{folders})/[\w./-]+)`", FENCE.sub("", text_of(page))))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_named_make_targets_exist(page: Path):
    targets = set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z][\w-]+)", text_of(page), re.MULTILINE)) - targets == set()


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_examples_import_what_exists(block: Block):
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgetune"):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("block", [block for block in PYTHON if block.marked], ids=str)
def test_python_examples_run(block: Block):
    with untimed():
        exec(compile(block.code, str(block), "exec"), {"__name__": "__main__"})


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(
    ("block", "arguments"), [pair for pair in COMMANDS if pair[0].marked], ids=lambda value: str(value)[:80]
)
def test_command_examples_run(block: Block, arguments: list[str]):
    result = CliRunner().invoke(root, arguments)
    assert (result.exit_code, result.exception) == (0, None), result.output
    assert result.stdout
