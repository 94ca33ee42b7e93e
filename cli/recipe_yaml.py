"""YAML as recipes are written in: words, numbers, lists and sections, and a refusal of one line for anything else.

Apart from what recipes hold. YAML 1.1, which PyYAML reads, has dates, `on` for true, octal 010, tags that make objects
and aliases that stand for billions of values; a recipe has names of columns that look like these. So a scalar is what
JSON would take it for, else a word: `on`, `010` and 2024-01-01 are words (the core schema of YAML 1.2 is close to it).
"""

from __future__ import annotations

import re
import reprlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from edgetune.serve.errors import RecipeError

MOST_BYTES = 256 * 1024
MOST_DEPTH = 40
# Values and their characters once aliases are replaced by what they stand for.
MOST_EXPANDED = 1_000_000

_TAG = "tag:yaml.org,2002:"
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class NotYaml(ValueError):
    """A text is no YAML of a recipe; the message says why, in one line."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the plain scalars of recipes; values are made of its nodes here, and not by it."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile("^(" + "|".join(_BOOLS) + ")$"), list("tTfF"))
_Loader.add_implicit_resolver(f"{_TAG}null", re.compile("^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(f"{_TAG}float", re.compile(f"^{_NUMBER.pattern}$"), list("-0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}merge", re.compile("^<<$"), ["<"])


def read_yaml(path: Path) -> object:
    """The value of a recipe file.

    Raises:
        RecipeError: there is no such file, it is none that can be read whole, or it holds no YAML of a recipe.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise RecipeError(f"The recipe {path} is no file but a device, a pipe or a folder.", expected="a YAML file")
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise RecipeError(f"There is no recipe {path}.", action=f"edgetune init DATA -o {path} writes one") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"The recipe {path!s:.200} cannot be read: {reason}.", expected="a YAML file") from error
    if len(content) > MOST_BYTES:
        raise RecipeError(
            f"The recipe {path} has more than {MOST_BYTES:,} bytes.", expected="a recipe, which has a few hundred lines"
        )
    try:
        return yaml_value(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"The recipe {path} cannot be read: line {line} is not UTF-8.", expected="YAML") from error
    except NotYaml as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error}.", expected="a YAML file") from error


def yaml_value(text: str) -> Any:
    """What a YAML text says, as None, bools, numbers, strings, lists and dicts with strings as keys.

    A number is one where it is written as Python writes it, so that a word made of it is the word that was written.

    Raises:
        NotYaml: it says nothing of the kind.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}, " if error.problem_mark else ""
        raise NotYaml(f"{where}{' '.join(str(error.problem or error.context).split()):.200}") from error
    except RecursionError as error:
        raise NotYaml(_too_deep()) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise NotYaml(f"{' '.join(str(error).split()):.200}") from error
    return None if node is None else _Values().value(node, 1)


class _Values:
    """Makes values of nodes, aliases replaced by copies, as long as there is room."""

    def __init__(self) -> None:
        self._room = MOST_EXPANDED

    def value(self, node: yaml.Node, depth: int) -> Any:
        if depth > MOST_DEPTH:
            raise NotYaml(_too_deep())
        if isinstance(node, yaml.ScalarNode):
            self._take(node, len(node.value) + 1)
            return _scalar(node)
        self._take(node, 1)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.value(inner, depth + 1) for inner in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, depth)
        raise _unknown_tag(node)

    def _take(self, node: yaml.Node, characters: int) -> None:
        self._room -= characters
        if self._room < 0:
            raise NotYaml(f"{_line(node)}its aliases stand for more than {MOST_EXPANDED:,} values and characters")

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise NotYaml(f"{_line(key)}a list or section stands where a key was expected")
            if key.tag == f"{_TAG}merge":
                for section in self._sections(inner, depth):
                    merged = {**section, **merged}
                continue
            self._take(key, len(key.value) + 1)
            name = _word(key)  # as it is written: `on: 1` is the key on
            if name in own:
                raise NotYaml(f"{_line(key)}the key {shown(name)} is there twice")
            own[name] = self.value(inner, depth + 1)
        return {**merged, **own}

    def _sections(self, node: yaml.Node, depth: int) -> Iterator[dict[str, Any]]:
        value = self.value(node, depth + 1)
        for section in value if isinstance(value, list) else [value]:
            if not isinstance(section, dict):
                raise NotYaml(f"{_line(node)}<< takes a section, or a list of them")
            yield section


def _scalar(node: yaml.ScalarNode) -> Any:
    kind, text = node.tag.removeprefix(_TAG), _word(node)
    if kind == "bool" and text in _BOOLS:
        return _BOOLS[text]
    if kind == "null":
        return None
    if kind in ("float", "int") and _NUMBER.fullmatch(text):
        return _number(text)
    if kind in ("str", "merge", "float"):
        return text
    raise _unknown_tag(node)


def _number(text: str) -> int | float | str:
    """A number that is written as Python writes it; else the text, of which a field of numbers makes one."""
    try:
        number = float(text) if "." in text else int(text)
        return number if str(number) == text else text
    except ValueError:  # more digits than Python reads
        return text


def _word(node: yaml.ScalarNode) -> str:
    text: str = node.value
    if _NO_TEXT.search(text):
        raise NotYaml(f"{_line(node)}a NUL or half a character stands in a word")
    return text


def _unknown_tag(node: yaml.Node) -> NotYaml:
    tag = node.tag.replace(_TAG, "!!")
    return NotYaml(f"{_line(node)}{tag:.60} makes no value of a recipe; leave the tag out")


def _too_deep() -> str:
    return f"lists or sections are nested more than {MOST_DEPTH} deep, or stand inside themselves"


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}, "


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist = 3, 6, 6
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(value: object) -> str:
    """A value in a message: as Python writes it, and never longer than a few lines."""
    return _SHORT.repr(value)
