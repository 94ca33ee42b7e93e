"""What one server shall be: bundles, address, keys, certificate, workers; and whether all of it can be used.

Checked before anything listens, so that a mistake ends in a message and not in a server that is never ready. Must not
import the web server: a worker process takes its plan apart before it loads one.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.feedback.redaction import Redaction
from edgetune.serve.feedback.store import check_folder
from edgetune.serve.http.keys import Keys
from edgetune.serve.http.settings import ServerSettings

BACKLOG = 2048


@dataclass(frozen=True, kw_only=True)
class ServerPlan:
    """One server, as it was asked for.

    Attributes:
        sources: bundle folders by model name.
        settings: limits and times of each worker process.
        host: name or address to listen on.
        port: 0 takes any that is free.
        workers: processes that answer on the one port.
        key_file: of the keys that requests must carry; None asks for none.
        tls_cert, tls_key: PEM files; None serves plain HTTP, a key of None stands in the certificate's file.
    """

    sources: dict[str, Path]
    settings: ServerSettings
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    key_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def check(self) -> None:
        """Open what can be opened without running it: manifests, digests, keys, certificate, feedback.

        Raises:
            EdgetuneError: the first of them that cannot be used.
        """
        for folder in self.sources.values():
            Bundle.open(folder)
        if self.settings.feedback is not None:
            check_folder(self.settings.feedback)
            Redaction(self.settings.redact, self.settings.redact_pattern)
        if self.key_file:
            Keys.open(self.key_file)
        if self.tls_cert:
            load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.tls_cert, self.tls_key)

    def url(self, listener: socket.socket) -> str:
        """The address to ask, with the port that was really taken."""
        port = listener.getsockname()[1]
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_cert else 'http'}://{host}:{port}"


def load_certificate(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """Read certificate and key into a context; handshakes from now on use them.

    Raises:
        EdgetuneError: a file cannot be read, is no PEM, or the two do not belong together.
    """
    try:
        # An empty password instead of a question on the terminal.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise EdgetuneError(
            f"The certificate {cert}" + (f" with the key {key}" if key else "") + f" cannot be used: {error}.",
            expected="PEM files of a certificate and its key, without a password",
        ) from error


def is_loopback(host: str) -> bool:
    """Whether a host name or address leads to this machine alone.

    Raises:
        EdgetuneError: it leads nowhere.
    """
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for _, address in _addresses(host))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; connections wait in it until a server takes them.

    Raises:
        EdgetuneError: the address is not this machine's, or the port is taken or not allowed.
    """
    family, _ = _addresses(host)[0]
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise EdgetuneError(
            f"Nothing can listen on port {port} of {host}: {os.strerror(error.errno or 0)}.",
            expected="an address of this machine and a port that no other program has",
            action="stop the other program, or choose another port: --port 0 takes any that is free",
        ) from error


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise EdgetuneError(
            f"There is no host {host!r}: {error}.", expected="a name or an address of this machine"
        ) from error
    return [(family, str(address[0])) for family, _, _, _, address in entries]
