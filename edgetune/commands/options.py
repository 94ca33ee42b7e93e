"""Options that several commands share, one decorator each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """`--json` as the parameter `as_json`: stdout then holds exactly one JSON document."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


def print_json(value: object) -> None:
    """Write `value`, made of plain lists, dicts and scalars, to stdout as the one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
