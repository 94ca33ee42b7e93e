"""What a model may be called: names go into addresses, logs and metrics, so nothing in them may lead elsewhere."""

from __future__ import annotations

import re

from edgetune.serve.errors import EdgetuneError

MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def check_name(name: str) -> None:
    """Refuse a model name that could lead elsewhere in a path or a log.

    Raises:
        EdgetuneError: naming what is allowed.
    """
    if not MODEL_NAME.fullmatch(name):
        raise EdgetuneError(
            f"{name[:140]!r} is no name for a model.",
            expected="letters, digits, dots, dashes and underscores, not beginning with a dot or a dash",
            action="name it: NAME=PATH",
        )
