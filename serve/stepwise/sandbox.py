"""The Jinja environment that chat templates are written for, in a sandbox that also bounds how long one may run.

A template comes with a model. Jinja's own sandbox keeps it from Python's insides, and lets three nested loops of 99,999
passes run for days. Here each pass of a loop and each call of a macro counts, by statements put into the parsed
template. Must import Jinja in functions only: plain prompts do without it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from edgetune.serve.errors import MissingDependency

# A chat of 1,000 messages with tools takes some 10,000 of them, in milliseconds.
MOST_STEPS = 1_000_000
MOST_SECONDS = 10.0
# Of a text or a list that `*` makes of another.
MOST_REPEATED = 10_000_000
MOST_EXPONENT = 64

_COUNT = "edgetune_count_step"


class Overrun(Exception):
    """A template took more steps or seconds than it may."""


def jinja() -> Any:
    """The jinja2 package.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import jinja2
        import jinja2.ext
        import jinja2.nodes
        import jinja2.sandbox
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "A chat is rendered by Jinja, which is not installed.", action="pip install 'jinja2>=3.1.6'"
        ) from error
    return jinja2


class Budget(threading.local):
    """What the template that a thread renders may still take."""

    def __init__(self) -> None:
        self._steps, self._deadline = 0, 0.0

    @contextmanager
    def granted(self, steps: int, seconds: float) -> Iterator[None]:
        """Let a template take so much while the block runs."""
        self._steps, self._deadline = steps, time.monotonic() + seconds
        yield

    def count(self) -> bool:
        """One step.

        Raises:
            Overrun: it was one too many.
        """
        self._steps -= 1
        if self._steps < 0:
            raise Overrun("it takes more passes of its loops than any chat needs")
        if time.monotonic() > self._deadline:
            raise Overrun("it takes more seconds than any chat needs")
        return True


def environment(budget: Budget) -> Any:
    """An environment whose templates count their steps; filters and globals as transformers' chat_template_utils.py."""
    jinja2 = jinja()
    nodes = jinja2.nodes

    class Bounded(jinja2.sandbox.ImmutableSandboxedEnvironment):  # type: ignore[misc, name-defined]
        """Templates run within a budget, and `*` and `**` make nothing that is out of all proportion."""

        intercepted_binops = frozenset(("*", "**"))

        def _parse(self, source: str, name: str | None, filename: str | None) -> Any:
            tree = super()._parse(source, name, filename)

            def step(node: Any) -> Any:
                # A filter, since no template can give its name another meaning, and a call costs the sandbox 4 us.
                counted = nodes.Filter(nodes.Const(None), _COUNT, [], [], None, None)
                return counted.set_lineno(node.lineno).set_environment(self)

            for node in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
                node.body.insert(0, nodes.ExprStmt(step(node)).set_lineno(node.lineno).set_environment(self))
                if isinstance(node, nodes.For) and node.test is not None:
                    node.test = nodes.And(step(node), node.test).set_lineno(node.lineno).set_environment(self)
            return tree

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" and not (isinstance(right, int | float) and abs(right) <= MOST_EXPONENT):
                raise Overrun(f"it raises a number to the power of {right!r:.40}")
            if operator == "*" and _repeats(left, right) + _repeats(right, left) > MOST_REPEATED:
                raise Overrun(f"it makes a text or a list of more than {MOST_REPEATED:,} parts")
            return super().call_binop(context, operator, left, right)

    made = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[_generation(jinja2), jinja2.ext.loopcontrols])

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    @jinja2.pass_context  # type: ignore[untyped-decorator]
    def count(context: Any, value: object) -> bool:
        return budget.count()

    made.filters[_COUNT] = count
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return made


def _repeats(value: Any, times: Any) -> int:
    """Parts of what a text or a list becomes when it is repeated; 0 where that is not what is asked."""
    return len(value) * times if isinstance(value, str | list | tuple) and isinstance(times, int) else 0


def _generation(jinja2: Any) -> Any:
    class Generation(jinja2.ext.Extension):  # type: ignore[misc]
        """`{% generation %}` marks the assistant's text in training; here its body is rendered as it stands."""

        tags = {"generation"}  # noqa: RUF012 (read by Jinja from the class)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    return Generation


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models have seen it: Jinja's own filter would escape what HTML reserves."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
