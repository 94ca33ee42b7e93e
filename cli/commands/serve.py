"""`edgetune serve`: bundles over HTTP. Needs the extra `serve`, which is checked before anything of it is loaded."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.commands.options import json_option, print_json
from edgetune.extras import pip_install
from edgetune.serve.errors import MissingDependency
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.http.split import DEFAULT_NAME, DEFAULT_SALT, Split

if TYPE_CHECKING:
    from edgetune.serve.http.launch import Started

DEFAULTS = ServerSettings()
FILE = click.Path(path_type=Path, dir_okay=False)
COUNT = click.IntRange(min=1)
SECONDS = click.FloatRange(min=0, min_open=True)
_WITHOUT_KEYS = "Give --api-key-file, or --public if everybody may ask."


def _origins(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Origins as browsers send them: a scheme, a host and perhaps a port, nothing behind."""
    for origin in given:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#]+", origin):
            raise click.BadParameter(f"{origin!r} is no origin. Give it as https://example.org:8443, without a path.")
    return given


@click.command(name="serve")
@click.argument("bundles", nargs=-1, required=True, metavar="[NAME=]BUNDLE...")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, help="Port to listen on; 0 takes any that is free."
)
@click.option(
    "--public", is_flag=True, help="Listen on a public address without keys: everybody who reaches it may ask."
)
@click.option(
    "--api-key-file",
    type=FILE,
    help="File of API keys, one a line: plain or sha256:HEX, then expires=2026-12-31 if they do.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Name with a dot by which a server without keys may be asked; repeatable.",
)
@click.option(
    "--allow-origin",
    multiple=True,
    callback=_origins,
    help="Origin whose pages may ask from a browser, https://example.org, or *; repeatable.",
)
@click.option("--tls-cert", type=FILE, help="File of the TLS certificate (PEM); with it, HTTPS is served.")
@click.option("--tls-key", type=FILE, help="File of the certificate's key (PEM), where it is another one.")
@click.option("--workers", type=COUNT, default=1, help="Worker processes on the one port.")
@click.option(
    "--threads", type=COUNT, default=DEFAULTS.threads, help="Threads per inference run; more for large models."
)
@click.option(
    "--lone-threads", type=COUNT, help="Threads per run for a lone caller.", show_default="best measured in the build"
)
@click.option(
    "--runners", type=COUNT, help="Inference runs at the same time.", show_default="as many as fill the cores"
)
@click.option(
    "--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Execution provider of the graphs."
)
@click.option(
    "--abstain-below",
    type=click.FloatRange(0, 1),
    help="Probability below which a label is unsure; 0 calls none unsure.",
    show_default="each bundle's",
)
@click.option(
    "--truncate/--refuse", default=DEFAULTS.truncate, help="Cut texts longer than the model takes, or refuse them."
)
@click.option(
    "--max-body-bytes", type=COUNT, default=DEFAULTS.max_body_bytes, help="Bytes of one request's body at most."
)
@click.option("--max-texts", type=COUNT, default=DEFAULTS.max_texts, help="Texts of one request at most.")
@click.option("--max-batch", type=COUNT, default=DEFAULTS.max_batch, help="Texts of one inference run at most.")
@click.option("--max-waiting", type=COUNT, default=DEFAULTS.max_waiting, help="Texts in the queue at most.")
@click.option("--max-requests", type=COUNT, default=DEFAULTS.max_requests, help="Requests at the same time at most.")
@click.option("--max-connections", type=COUNT, default=DEFAULTS.max_connections, help="Open connections at most.")
@click.option(
    "--request-seconds",
    type=SECONDS,
    default=DEFAULTS.request_seconds,
    help="Seconds until a request must be answered.",
)
@click.option(
    "--read-seconds",
    type=SECONDS,
    default=DEFAULTS.read_seconds,
    help="Seconds for a request's head or body to arrive.",
)
@click.option(
    "--grace-seconds",
    type=click.FloatRange(min=0),
    default=DEFAULTS.grace_seconds,
    help="Seconds to finish running requests when told to stop.",
)
@click.option(
    "--watch-seconds",
    type=click.FloatRange(min=0),
    default=DEFAULTS.watch_seconds,
    help="Seconds between checks for a new bundle in the folders; 0 never checks.",
)
@click.option(
    "--generation-seconds",
    type=SECONDS,
    default=DEFAULTS.generation_seconds,
    help="Seconds until a generated answer must end.",
)
@click.option(
    "--max-sequences",
    type=COUNT,
    default=DEFAULTS.max_sequences,
    help="Answers generated at the same time by each model, at most.",
)
@click.option(
    "--max-prompts",
    type=COUNT,
    default=DEFAULTS.max_prompts,
    help="Prompts waiting for each model at most.",
)
@click.option(
    "--max-answer-tokens",
    type=COUNT,
    default=DEFAULTS.max_answer_tokens,
    help="Tokens of one generated answer at most.",
)
@click.option(
    "--prove-seconds",
    type=SECONDS,
    help="Seconds for a new bundle to give its golden answers.",
    show_default="120, and 1 for each 16 MiB",
)
@click.option(
    "--answers-alone",
    is_flag=True,
    help="Compute each generated answer alone, so that it does not change with the load; slower for many callers.",
)
@click.option(
    "--lookup",
    is_flag=True,
    help="Guess the tokens of a lone answer ahead from its prompt: fewer steps for answers that quote it.",
)
@click.option(
    "--split", "shares", metavar="A=0.9,B=0.1", help="Answer one name by several models, each with its share of keys."
)
@click.option("--split-name", default=DEFAULT_NAME, help="Name that a split answers to, and requests without a model.")
@click.option("--split-salt", default=DEFAULT_SALT, help="Salt of the hash of keys; another one deals them anew.")
@click.option("--shadow", default="", metavar="B", help="Model that is asked beside the one that answers.")
@click.option("--shadow-log", type=FILE, help="Append both answers to a file of JSON Lines, without the requests.")
@click.option("--access-log/--no-access-log", default=DEFAULTS.access_log, help="Write one line a request to stderr.")
@click.option(
    "--feedback",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder in which answers, and what people say of them by POST /v1/feedback, are kept.",
    show_default="nothing is kept",
)
@click.option(
    "--feedback-bytes",
    type=click.IntRange(min=1024**2),
    default=DEFAULTS.feedback_bytes,
    help="Bytes of that folder at most; past them the oldest file is removed.",
)
@click.option(
    "--redact",
    type=click.Choice([*DEFAULTS.redact, "none"]),
    multiple=True,
    default=DEFAULTS.redact,
    help="Kind of personal data that is replaced in what is kept; repeatable.",
)
@click.option(
    "--redact-pattern",
    multiple=True,
    metavar="NAME=REGEX",
    help="Regular expression whose matches are replaced in what is kept; repeatable.",
)
@json_option
def command(
    bundles: tuple[str, ...],
    host: str,
    port: int,
    public: bool,
    api_key_file: Path | None,
    allow_host: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    workers: int,
    redact: tuple[str, ...],
    shares: str | None,
    split_name: str,
    split_salt: str,
    as_json: bool,
    **limits: Any,
) -> None:
    """Serve bundles over HTTP: by the Open Inference Protocol, by OpenAI's routes, and by a plain one for people.

    A model has the name of its folder unless NAME= says another. The server is ready when each bundle was verified,
    run over its length range, and gave its golden answers. A new bundle put in the place of an old one is proven
    beside it and then switched in. SIGTERM finishes what is running; SIGHUP reads the keys again.

    \b
    Example:
      edgetune serve bundles/banking77
      edgetune serve intents=bundles/banking77 mood=bundles/sst2 --port 9000
      edgetune serve bundles/x --host 0.0.0.0 --api-key-file keys.txt --workers 4
      edgetune serve a=bundles/old b=bundles/new --split a=0.9,b=0.1
      edgetune serve a=bundles/old b=bundles/new --shadow b --shadow-log shadow.jsonl
      edgetune serve bundles/talk        # a language model: /v1/chat/completions, for OpenAI's clients
      curl 127.0.0.1:8080/v1/classify -d '{"texts": ["my card has not arrived"]}'
    """
    if tls_key and not tls_cert:
        raise click.UsageError("--tls-key goes with --tls-cert.")
    sources = _sources(bundles)
    split = _split(shares, split_name, split_salt, sources)
    _check_shadow(sources, split, str(limits["shadow"]), limits["shadow_log"])
    _require_extra()
    from edgetune.serve.http.launch import serve
    from edgetune.serve.http.plan import ServerPlan, is_loopback

    if not (public or api_key_file or is_loopback(host)):
        raise click.UsageError(f"{host} can be reached by others and asks for no key. {_WITHOUT_KEYS}")
    # Whoever may be asked by everybody may be asked by every name.
    hosts = tuple(name.lower() for name in (allow_host if public or api_key_file else (host, *allow_host)))
    plan = ServerPlan(
        sources=sources,
        settings=ServerSettings(allow_host=hosts, redact=_redacted(redact), split=split, **limits),
        host=host,
        port=port,
        workers=workers,
        key_file=api_key_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    serve(plan, _print_json if as_json else _print_lines)


def _redacted(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of patterns; none where `none` is said."""
    if "none" not in names:
        return names
    if len(names) > 1:
        raise click.UsageError("--redact none goes with no other name.")
    return ()


def _split(shares: str | None, name: str, salt: str, sources: dict[str, Path]) -> Split | None:
    """The split that is asked for, held against the models.

    Raises:
        InputError: it cannot be.
    """
    from edgetune.serve.http.names import check_name

    if shares is None:
        if (name, salt) != (DEFAULT_NAME, DEFAULT_SALT):
            raise click.UsageError("--split-name and --split-salt go with --split.")
        return None
    check_name(name)
    split = Split.of(shares, name, salt)
    split.check(sources)
    return split


def _check_shadow(sources: dict[str, Path], split: Split | None, shadow: str, log: Path | None) -> None:
    """Refuse a shadow that is no served model, or has nobody to stand beside."""
    if log and not shadow:
        raise click.UsageError("--shadow-log goes with --shadow.")
    if shadow and (shadow not in sources or len(sources) < 2):
        raise click.UsageError(f"--shadow {shadow} is none of several models here: {', '.join(sources)}.")
    if split is not None and shadow in dict(split.shares):
        raise click.UsageError(f"--shadow {shadow} is an arm of --split: it answers already.")


def _sources(bundles: tuple[str, ...]) -> dict[str, Path]:
    """Bundle folders by model name, in the order they were given."""
    sources: dict[str, Path] = {}
    for given in bundles:
        name, path = _named(given)
        if name in sources:
            raise click.UsageError(f"Two bundles are named {name!r}. Name one otherwise: NAME={path}")
        sources[name] = path
    return sources


def _named(given: str) -> tuple[str, Path]:
    from edgetune.serve.http.names import MODEL_NAME

    name, sign, path = given.partition("=")
    if not sign or Path(given).is_dir():
        name, path = Path(given).resolve().name, given
    if not MODEL_NAME.fullmatch(name):
        raise click.UsageError(
            f"{name!r} is no name for a model: letters, digits, dots, dashes and underscores, not beginning with a dot "
            f"or a dash. Name it: NAME={path}"
        )
    if not path:
        raise click.UsageError(f"{given!r} names no folder.")
    return name, Path(path)


def _require_extra() -> None:
    """Check that the web server is installed, without loading it.

    Raises:
        MissingDependency: with the pip command.
    """
    modules = ["httptools", "jinja2", "prometheus_client", "starlette", "uvicorn"]
    if sys.platform != "win32":
        modules.append("uvloop")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"Serving needs packages that are not installed: {', '.join(missing)}.",
            action=pip_install("serve"),
        )


def _print_json(started: Started) -> None:
    models, providers = started.ready.models, started.ready.providers
    print_json({"url": started.url, "models": models, "providers": providers, "seconds": round(started.seconds, 3)})


def _print_lines(started: Started) -> None:
    for name, providers in started.ready.providers.items():
        click.echo(f"{name}\tversion {started.ready.models[name]}\t{', '.join(providers)}")
    click.echo(f"Ready at {started.url} after {started.seconds:.1f} s.")
