"""Bundles on Ray Serve, for more than one machine: `serve run edgetune.serve.ray:app bundle=bundles/x num_replicas=2`.

Each replica is one process with the same application that `edgetune serve` answers with; Ray shares requests out, and
asks for no keys: those stand before it. Needs the extras `ray` and `serve`, and is imported by Ray alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import InputError, MissingDependency
from edgetune.serve.http.names import check_name
from edgetune.serve.http.settings import ServerSettings

USAGE = "bundle=FOLDER, and where wished name=, num_replicas=, threads=, provider=, truncate=, max_batch=, max_texts="


def app(args: Mapping[str, str] | str) -> Any:
    """The application that `serve run` and `ray.serve.run` start.

    Args:
        args: `bundle`, a folder that every machine of the cluster can read; `name` of the model, its folder's name
            when not said; `num_replicas`; and settings by the names they have in ServerSettings. A string is the
            bundle alone.

    Raises:
        InputError: an argument is missing, unknown or no number.
        BundleError: there is no bundle in the folder.
        MissingDependency: Ray Serve is not installed.
    """
    given = {"bundle": args} if isinstance(args, str) else dict(args)
    if not given.get("bundle"):
        raise InputError("The argument bundle is missing.", expected=USAGE)
    folder = Path(given.pop("bundle")).resolve()
    name = given.pop("name", folder.name)
    check_name(name)
    replicas = _number("num_replicas", given.pop("num_replicas", "1"))
    settings = _settings(given)
    Bundle.open(folder)
    serve = _ray_serve()
    deployment = serve.deployment(
        Replica,
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=settings.max_requests,
        graceful_shutdown_timeout_s=settings.grace_seconds,
        ray_actor_options={"num_cpus": settings.threads},
    )
    return deployment.bind(name, str(folder), settings)


class Replica:
    """One replica: a repository of one bundle and the application around it."""

    def __init__(self, name: str, folder: str, settings: ServerSettings) -> None:
        from edgetune.serve.http.app import create_app
        from edgetune.serve.http.metrics import Metrics
        from edgetune.serve.http.repository import Repository

        metrics = Metrics()
        self._repository = Repository({name: Path(folder)}, settings, observe=metrics.observe_run)
        self._app = create_app(self._repository, settings, metrics=metrics)
        self._opening: asyncio.Task[None] | None = None

    async def check_health(self) -> None:
        """What Ray asks before it sends requests here, and again and again: a bundle that cannot be used raises."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._repository.start())
        await asyncio.shield(self._opening)

    async def __call__(self, request: Any) -> Any:
        """Answer one request (a Starlette request, as Ray gives it) by the application's own routes."""
        from starlette.responses import Response

        await self.check_health()
        sent: list[Mapping[str, Any]] = []

        async def send(message: Mapping[str, object]) -> None:
            sent.append(message)

        await self._app(request.scope, request.receive, send)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        response = Response(body, sent[0]["status"])
        response.raw_headers = list(sent[0]["headers"])
        return response


def _settings(given: Mapping[str, str]) -> ServerSettings:
    settings = ServerSettings(access_log=False)
    readers: dict[str, Callable[[str, str], Any]] = {
        "threads": _number,
        "runners": _number,
        "max_batch": _number,
        "max_texts": _number,
        "provider": lambda _, value: value,
        "truncate": _truth,
    }
    unknown = given.keys() - readers.keys()
    if unknown:
        raise InputError(f"There is no argument {', '.join(sorted(unknown))}.", expected=USAGE)
    return replace(settings, **{name: readers[name](name, value) for name, value in given.items()})


def _number(name: str, value: str) -> int:
    if not str(value).isdigit() or int(value) < 1:
        raise InputError(f"{name} is {value!r}.", expected="a whole number, 1 or more")
    return int(value)


def _truth(name: str, value: str) -> bool:
    if str(value).lower() not in {"true", "false"}:
        raise InputError(f"{name} is {value!r}.", expected="true or false")
    return str(value).lower() == "true"


def _ray_serve() -> Any:
    try:
        from ray import serve
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "Ray Serve is not installed.",
            action="pip install 'edgetune[ray,serve,cpu]' on every machine of the cluster",
        ) from error
    return serve
