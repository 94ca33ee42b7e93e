"""Saying which extra a missing package belongs to, with the exact command that brings it."""

from __future__ import annotations

import importlib.util

from edgetune.serve.errors import MissingDependency


def require(extra: str, *modules: str) -> None:
    """Check that modules can be imported, without importing them.

    Raises:
        MissingDependency: naming all that are missing and the pip command.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"This needs packages that are not installed: {', '.join(missing)}.",
            action=f"pip install 'edgetune[{extra}]'",
            cost="torch and its companions, about 2 GB; answering with a bundle needs none of it",
        )
