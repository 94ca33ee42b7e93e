"""What pages of other sites in a user's browser may do with this server: who may name it, and who may read its answers.

A page whose own name leads to 127.0.0.1 for a moment (DNS rebinding) reaches a server that asks for no key; its name
stands in the header Host. A page of another origin may read what CORS allows it to
(https://fetch.spec.whatwg.org/#http-cors-protocol). Must not import the web server.
"""

from __future__ import annotations

import ipaddress
import re

from edgetune.serve.http.errors import Refused

Headers = list[tuple[bytes, bytes]]

# What a page may read of an answer beside its body, and send without being asked which.
_READABLE = b"x-request-id, retry-after, inference-header-content-length"
_SENDABLE = b"authorization, content-type, x-api-key, x-request-id, inference-header-content-length"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}", re.ASCII)
PREFLIGHT_SECONDS = 600


def check_host(presented: str | None, allowed: tuple[str, ...]) -> None:
    """Refuse a request that was sent to another name than one of this server's; an address can be no other's.

    Args:
        presented: the header Host; None where there is none, which no browser sends.
        allowed: names with dots that are this server's; none lets every name.

    Raises:
        Refused: 403.
    """
    if not allowed or presented is None:
        return
    name = _name_of(presented)
    # A name without a dot is one of the own network: nobody outside can make it lead anywhere.
    if "." not in name or name.endswith(".localhost") or name in allowed or _is_address(name):
        return
    raise Refused(
        403,
        f"The request was sent to the host {name[:100]!r}.",
        expected="an address of this machine, localhost, or a name that was allowed",
        action="start the server with --allow-host and this name, or with keys",
    )


def _name_of(host: str) -> str:
    """The name without its port, as names are compared."""
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.strip().rstrip(".").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def cors_headers(origin: str | None, allowed: tuple[str, ...]) -> Headers:
    """What lets a page of an allowed origin read an answer; none for any other."""
    if not allowed:
        return []
    vary = (b"vary", b"origin")
    if origin is None or not ("*" in allowed or origin in allowed):
        return [vary]
    return [
        vary,
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", _READABLE),
    ]


def preflight_headers(asked: str | None) -> Headers:
    """What a browser asks for before it sends a request of another origin: `asked` are the headers it wants to send."""
    sendable = asked.encode("ascii") if asked and _HEADER_NAMES.fullmatch(asked) else _SENDABLE
    return [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", sendable),
        (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
    ]
