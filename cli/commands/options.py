"""Options that several commands share, one decorator each, and what they do alike with stdout and stderr."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """`--json` as the parameter `as_json`: stdout then holds exactly one JSON document."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


def print_json(value: object) -> None:
    """Write `value`, made of plain lists, dicts and scalars, to stdout as the one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def without_chatter(*, verbose: bool = False) -> Iterator[None]:
    """Let libraries say nothing on stderr, for commands that write nothing and so have no log file for it."""
    chatter = contextlib.nullcontext() if verbose else contextlib.redirect_stderr(io.StringIO())
    with chatter, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
