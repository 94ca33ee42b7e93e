"""Options that several commands share, one decorator each, and what they do alike with stdout and stderr."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def json_option(function: F) -> F:
    """`--json` as the parameter `as_json`: stdout then holds exactly one JSON document."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


def print_json(value: object) -> None:
    """Write `value`, made of plain lists, dicts and scalars, to stdout as the one JSON document."""
    click.echo(_json_text(value, indent=2))


def print_json_line(value: object) -> None:
    """Write `value` to stdout as one line of JSON Lines."""
    click.echo(_json_text(value, indent=None))


def _json_text(value: object, indent: int | None) -> str:
    """JSON that stdout can carry; numbers that JSON has no word for (NaN, infinity) are null."""
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_without_nan(value), indent=indent, ensure_ascii=False)
    text = _LONE_SURROGATE.sub("\ufffd", text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # an old terminal
        return json.dumps(json.loads(text), indent=indent)
    return text


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def without_chatter(*, verbose: bool = False) -> Iterator[None]:
    """Let libraries say nothing on stderr, for commands that write nothing and so have no log file for it."""
    chatter = contextlib.nullcontext() if verbose else contextlib.redirect_stderr(io.StringIO())
    with chatter, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
